"""What a person reads: tables, key images and the page of one patient.

The report only formats: every number that it shows stands in the ``Analysis``, but for differences and thresholds of the
response criteria that it writes beside them.
"""
