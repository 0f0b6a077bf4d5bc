"""The module ImmunoRadiomics: what Slicer looks for. The work is in ``ImmunoRadiomicsPanel``."""

import os
import sys

import slicer
from ImmunoRadiomicsPanel.Logic import ImmunoRadiomicsLogic
from ImmunoRadiomicsPanel.Nodes import removeSegmentations
from ImmunoRadiomicsPanel.ParameterNode import ImmunoRadiomicsParameterNode
from ImmunoRadiomicsPanel.VirtualPatient import makeVirtualPatient, registerSampleData
from ImmunoRadiomicsPanel.Widget import PanelWidget
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

__all__ = [
    "ImmunoRadiomics",
    "ImmunoRadiomicsLogic",
    "ImmunoRadiomicsParameterNode",
    "ImmunoRadiomicsTest",
    "ImmunoRadiomicsWidget",
]


class ImmunoRadiomics(ScriptedLoadableModule):
    """What the application shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("ImmunoRadiomics")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Quantification")]
        parent.dependencies = []
        parent.contributors = ["The ImmunoRadiomics developers"]
        parent.helpText = _(
            "Follows every lesion and the lungs on CT under cancer immunotherapy: alignment, radiomics, RECIST 1.1 and "
            "iRECIST, and the evidence for pseudoprogression, hyperprogression and pneumonitis. Research use only. "
            "See the <a href='{url}'>documentation</a>."
        ).format(url="https://github.com/ImmunoRadiomics/SlicerImmunoRadiomics#readme")
        parent.acknowledgementText = _(
            "Radiomics are computed by pyradiomics (van Griethuysen et al., Cancer Research 2017, doi:10.1158/0008-5472.CAN-17-0339)."
        )
        slicer.app.connect("startupCompleted()", onStartupCompleted)


def onStartupCompleted():
    """Tell the other modules what this one adds to them."""
    icon = os.path.join(os.path.dirname(os.path.abspath(__file__)), "Resources", "Icons", "ImmunoRadiomics.png")
    registerSampleData(icon)
    # After what follows the choices has let go of them.
    slicer.mrmlScene.AddObserver(slicer.mrmlScene.StartCloseEvent, removeSegmentations, -1.0)
    try:
        from ImmunoRadiomicsPanel.RecistStatisticsPlugin import registerPlugin
    except ModuleNotFoundError as error:
        # Slicer can be built without the module Segment Statistics; anything else that is missing is a defect.
        if error.name != "SegmentStatisticsPlugins":
            raise
        return
    registerPlugin()


class ImmunoRadiomicsWidget(PanelWidget):
    """The panel."""

    def onReload(self):
        """Reload the module with its library: without this, only this file would be read again."""
        for name in list(sys.modules):
            if name.split(".")[0] in ("ImmunoRadiomicsPanel", "ImmunoRadiomicsLib"):
                del sys.modules[name]
        super().onReload()


class ImmunoRadiomicsTest(ScriptedLoadableModuleTest):
    """The self-test: from the virtual patient to the flags, in a real Slicer."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run every test."""
        self.setUp()
        self.test_virtualPatient()

    def test_virtualPatient(self):
        """Make a virtual patient, analyze it, and look at flags and nodes."""
        from ImmunoRadiomicsPanel.Dependencies import missingPackages
        from ImmunoRadiomicsPanel.Timepoints import readRows

        if missing := missingPackages():
            self.delayDisplay(_("Skipped, Python packages are missing: {names}").format(names=", ".join(missing)))
            self.skipTest(", ".join(missing))
        self.delayDisplay(_("Making a virtual patient"))
        logic = ImmunoRadiomicsLogic()
        parameters = makeVirtualPatient(logic=logic)
        rows = readRows(parameters.parameterNode)
        self.assertGreaterEqual(len(rows), 2)
        self.assertEqual(logic.problems(parameters), [])
        self.delayDisplay(_("Analyzing it"))
        analysis = logic.analyze(
            parameters.patient,
            [(row.date, row.volume, row.segmentation) for row in rows],
            treatmentStart=parameters.treatmentStart,
            preset="ct-lesion-fast",
        )
        self.assertEqual(
            {flag.flag for flag in analysis.flags}, {"pseudoprogression", "hyperprogression", "pneumonitis"}
        )
        for flag in analysis.flags:
            if flag.status == "assessed":
                self.assertTrue(0.0 <= flag.lower <= flag.probability <= flag.upper <= 1.0)
        self.assertGreaterEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode"), 4)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode"), 1)
        self.delayDisplay(_("Test passed"))
