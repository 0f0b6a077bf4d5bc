"""The features of the image biomarker standardisation initiative: names, reference codes and ways of aggregation.

Names are those of the published tables of reference values; codes are those of the reference manual
(A. Zwanenburg et al., doi:10.1148/radiol.2020191145, arXiv:1612.07003).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

# Directional textures (GLCM, GLRLM) by how directions and slices are brought together.
AGGREGATIONS = MappingProxyType(
    {
        "2D_avg": "BTW3",
        "2D_comb": "SUJT",
        "2_5D_avg": "JJUI",
        "2_5D_comb": "ZW7Z",
        "3D_avg": "ITBB",
        "3D_comb": "IAZD",
    }
)

# Textures without directions (GLSZM, GLDZM, NGTDM, NGLDM).
DIMENSIONS = MappingProxyType({"2D": "8QNN", "2_5D": "62GR", "3D": "KOBO"})

# Features that the manual defines but for which no consensus on a value was reached.
WITHOUT_CONSENSUS = frozenset(
    {"morph_vol_dens_ombb", "morph_area_dens_ombb", "morph_vol_dens_mvee", "morph_area_dens_mvee", "ivh_auc"}
)

DIRECTIONAL_FAMILIES = frozenset({"cm", "rlm"})
OTHER_TEXTURE_FAMILIES = frozenset({"szm", "dzm", "ngt", "ngl"})


@dataclass(frozen=True)
class Feature:
    """One feature: the name in the tables of reference values, the reference code, and its title in the manual."""

    name: str
    code: str
    title: str

    @property
    def family(self) -> str:
        """The first part of the name: `morph`, `loc`, `stat`, `ih`, `ivh`, `cm`, `rlm`, `szm`, `dzm`, `ngt` or `ngl`."""
        return self.name.split("_", 1)[0]


FEATURES: tuple[Feature, ...] = (
    Feature("morph_volume", "RNU0", "Volume"),
    Feature("morph_vol_approx", "YEKZ", "Approximate volume"),
    Feature("morph_area_mesh", "C0JK", "Surface area"),
    Feature("morph_av", "2PR5", "Surface to volume ratio"),
    Feature("morph_comp_1", "SKGS", "Compactness 1"),
    Feature("morph_comp_2", "BQWJ", "Compactness 2"),
    Feature("morph_sph_dispr", "KRCK", "Spherical disproportion"),
    Feature("morph_sphericity", "QCFX", "Sphericity"),
    Feature("morph_asphericity", "25C7", "Asphericity"),
    Feature("morph_com", "KLMA", "Centre of mass shift"),
    Feature("morph_diam", "L0JK", "Maximum 3D diameter"),
    Feature("morph_pca_maj_axis", "TDIC", "Major axis length"),
    Feature("morph_pca_min_axis", "P9VJ", "Minor axis length"),
    Feature("morph_pca_least_axis", "7J51", "Least axis length"),
    Feature("morph_pca_elongation", "Q3CK", "Elongation"),
    Feature("morph_pca_flatness", "N17B", "Flatness"),
    Feature("morph_vol_dens_aabb", "PBX1", "Volume density - axis-aligned bounding box"),
    Feature("morph_area_dens_aabb", "R59B", "Area density - axis-aligned bounding box"),
    Feature("morph_vol_dens_ombb", "ZH1A", "Volume density - oriented minimum bounding box"),
    Feature("morph_area_dens_ombb", "IQYR", "Area density - oriented minimum bounding box"),
    Feature("morph_vol_dens_aee", "6BDE", "Volume density - approximate enclosing ellipsoid"),
    Feature("morph_area_dens_aee", "RDD2", "Area density - approximate enclosing ellipsoid"),
    Feature("morph_vol_dens_mvee", "SWZ1", "Volume density - minimum volume enclosing ellipsoid"),
    Feature("morph_area_dens_mvee", "BRI8", "Area density - minimum volume enclosing ellipsoid"),
    Feature("morph_vol_dens_conv_hull", "R3ER", "Volume density - convex hull"),
    Feature("morph_area_dens_conv_hull", "7T7F", "Area density - convex hull"),
    Feature("morph_integ_int", "99N0", "Integrated intensity"),
    Feature("morph_moran_i", "N365", "Moran's I index"),
    Feature("morph_geary_c", "NPT7", "Geary's C measure"),
    Feature("loc_peak_loc", "VJGA", "Local intensity peak"),
    Feature("loc_peak_glob", "0F91", "Global intensity peak"),
    Feature("stat_mean", "Q4LE", "Mean"),
    Feature("stat_var", "ECT3", "Variance"),
    Feature("stat_skew", "KE2A", "Skewness"),
    Feature("stat_kurt", "IPH6", "Kurtosis"),
    Feature("stat_median", "Y12H", "Median"),
    Feature("stat_min", "1GSF", "Minimum"),
    Feature("stat_p10", "QG58", "10th percentile"),
    Feature("stat_p90", "8DWT", "90th percentile"),
    Feature("stat_max", "84IY", "Maximum"),
    Feature("stat_iqr", "SALO", "Interquartile range"),
    Feature("stat_range", "2OJQ", "Range"),
    Feature("stat_mad", "4FUA", "Mean absolute deviation"),
    Feature("stat_rmad", "1128", "Robust mean absolute deviation"),
    Feature("stat_medad", "N72L", "Median absolute deviation"),
    Feature("stat_cov", "7TET", "Coefficient of variation"),
    Feature("stat_qcod", "9S40", "Quartile coefficient of dispersion"),
    Feature("stat_energy", "N8CA", "Energy"),
    Feature("stat_rms", "5ZWQ", "Root mean square"),
    Feature("ih_mean", "X6K6", "Intensity histogram mean"),
    Feature("ih_var", "CH89", "Intensity histogram variance"),
    Feature("ih_skew", "88K1", "Intensity histogram skewness"),
    Feature("ih_kurt", "C3I7", "Intensity histogram kurtosis"),
    Feature("ih_median", "WIFQ", "Intensity histogram median"),
    Feature("ih_min", "1PR8", "Intensity histogram minimum"),
    Feature("ih_p10", "GPMT", "Intensity histogram 10th percentile"),
    Feature("ih_p90", "OZ0C", "Intensity histogram 90th percentile"),
    Feature("ih_max", "3NCY", "Intensity histogram maximum"),
    Feature("ih_mode", "AMMC", "Intensity histogram mode"),
    Feature("ih_iqr", "WR0O", "Intensity histogram interquartile range"),
    Feature("ih_range", "5Z3W", "Intensity histogram range"),
    Feature("ih_mad", "D2ZX", "Intensity histogram mean absolute deviation"),
    Feature("ih_rmad", "WRZB", "Intensity histogram robust mean absolute deviation"),
    Feature("ih_medad", "4RNL", "Intensity histogram median absolute deviation"),
    Feature("ih_cov", "CWYJ", "Intensity histogram coefficient of variation"),
    Feature("ih_qcod", "SLWD", "Intensity histogram quartile coefficient of dispersion"),
    Feature("ih_entropy", "TLU2", "Intensity histogram entropy"),
    Feature("ih_uniformity", "BJ5W", "Intensity histogram uniformity"),
    Feature("ih_max_grad", "12CE", "Maximum histogram gradient"),
    Feature("ih_max_grad_g", "8E6O", "Maximum histogram gradient grey level"),
    Feature("ih_min_grad", "VQB3", "Minimum histogram gradient"),
    Feature("ih_min_grad_g", "RHQZ", "Minimum histogram gradient grey level"),
    Feature("ivh_v10", "NK6P", "Volume fraction at 10% intensity"),
    Feature("ivh_v90", "4279", "Volume fraction at 90% intensity"),
    Feature("ivh_i10", "PWN1", "Intensity at 10% volume"),
    Feature("ivh_i90", "BOHI", "Intensity at 90% volume"),
    Feature("ivh_diff_v10_v90", "WITY", "Difference in volume fraction between 10% and 90% intensity"),
    Feature("ivh_diff_i10_i90", "JXJA", "Difference in intensity between 10% and 90% volume"),
    Feature("ivh_auc", "9CMM", "Area under IVH curve"),
    Feature("cm_joint_max", "GYBY", "Joint maximum"),
    Feature("cm_joint_avg", "60VM", "Joint average"),
    Feature("cm_joint_var", "UR99", "Joint variance"),
    Feature("cm_joint_entr", "TU9B", "Joint entropy"),
    Feature("cm_diff_avg", "TF7R", "Difference average"),
    Feature("cm_diff_var", "D3YU", "Difference variance"),
    Feature("cm_diff_entr", "NTRS", "Difference entropy"),
    Feature("cm_sum_avg", "ZGXS", "Sum average"),
    Feature("cm_sum_var", "OEEB", "Sum variance"),
    Feature("cm_sum_entr", "P6QZ", "Sum entropy"),
    Feature("cm_energy", "8ZQL", "Angular second moment"),
    Feature("cm_contrast", "ACUI", "Contrast"),
    Feature("cm_dissimilarity", "8S9J", "Dissimilarity"),
    Feature("cm_inv_diff", "IB1Z", "Inverse difference"),
    Feature("cm_inv_diff_norm", "NDRX", "Normalised inverse difference"),
    Feature("cm_inv_diff_mom", "WF0Z", "Inverse difference moment"),
    Feature("cm_inv_diff_mom_norm", "1QCO", "Normalised inverse difference moment"),
    Feature("cm_inv_var", "E8JP", "Inverse variance"),
    Feature("cm_corr", "NI2N", "Correlation"),
    Feature("cm_auto_corr", "QWB0", "Autocorrelation"),
    Feature("cm_clust_tend", "DG8W", "Cluster tendency"),
    Feature("cm_clust_shade", "7NFM", "Cluster shade"),
    Feature("cm_clust_prom", "AE86", "Cluster prominence"),
    Feature("cm_info_corr1", "R8DG", "First measure of information correlation"),
    Feature("cm_info_corr2", "JN9H", "Second measure of information correlation"),
    Feature("rlm_sre", "22OV", "Short runs emphasis"),
    Feature("rlm_lre", "W4KF", "Long runs emphasis"),
    Feature("rlm_lgre", "V3SW", "Low grey level run emphasis"),
    Feature("rlm_hgre", "G3QZ", "High grey level run emphasis"),
    Feature("rlm_srlge", "HTZT", "Short run low grey level emphasis"),
    Feature("rlm_srhge", "GD3A", "Short run high grey level emphasis"),
    Feature("rlm_lrlge", "IVPO", "Long run low grey level emphasis"),
    Feature("rlm_lrhge", "3KUM", "Long run high grey level emphasis"),
    Feature("rlm_glnu", "R5YN", "Grey level non-uniformity"),
    Feature("rlm_glnu_norm", "OVBL", "Normalised grey level non-uniformity"),
    Feature("rlm_rlnu", "W92Y", "Run length non-uniformity"),
    Feature("rlm_rlnu_norm", "IC23", "Normalised run length non-uniformity"),
    Feature("rlm_r_perc", "9ZK5", "Run percentage"),
    Feature("rlm_gl_var", "8CE5", "Grey level variance"),
    Feature("rlm_rl_var", "SXLW", "Run length variance"),
    Feature("rlm_rl_entr", "HJ9O", "Run entropy"),
    Feature("szm_sze", "5QRC", "Small zone emphasis"),
    Feature("szm_lze", "48P8", "Large zone emphasis"),
    Feature("szm_lgze", "XMSY", "Low grey level zone emphasis"),
    Feature("szm_hgze", "5GN9", "High grey level zone emphasis"),
    Feature("szm_szlge", "5RAI", "Small zone low grey level emphasis"),
    Feature("szm_szhge", "HW1V", "Small zone high grey level emphasis"),
    Feature("szm_lzlge", "YH51", "Large zone low grey level emphasis"),
    Feature("szm_lzhge", "J17V", "Large zone high grey level emphasis"),
    Feature("szm_glnu", "JNSA", "Grey level non-uniformity"),
    Feature("szm_glnu_norm", "Y1RO", "Normalised grey level non-uniformity"),
    Feature("szm_zsnu", "4JP3", "Zone size non-uniformity"),
    Feature("szm_zsnu_norm", "VB3A", "Normalised zone size non-uniformity"),
    Feature("szm_z_perc", "P30P", "Zone percentage"),
    Feature("szm_gl_var", "BYLV", "Grey level variance"),
    Feature("szm_zs_var", "3NSA", "Zone size variance"),
    Feature("szm_zs_entr", "GU8N", "Zone size entropy"),
    Feature("dzm_sde", "0GBI", "Small distance emphasis"),
    Feature("dzm_lde", "MB4I", "Large distance emphasis"),
    Feature("dzm_lgze", "S1RA", "Low grey level zone emphasis"),
    Feature("dzm_hgze", "K26C", "High grey level zone emphasis"),
    Feature("dzm_sdlge", "RUVG", "Small distance low grey level emphasis"),
    Feature("dzm_sdhge", "DKNJ", "Small distance high grey level emphasis"),
    Feature("dzm_ldlge", "A7WM", "Large distance low grey level emphasis"),
    Feature("dzm_ldhge", "KLTH", "Large distance high grey level emphasis"),
    Feature("dzm_glnu", "VFT7", "Grey level non-uniformity"),
    Feature("dzm_glnu_norm", "7HP3", "Normalised grey level non-uniformity"),
    Feature("dzm_zdnu", "V294", "Zone distance non-uniformity"),
    Feature("dzm_zdnu_norm", "IATH", "Normalised zone distance non-uniformity"),
    Feature("dzm_z_perc", "VIWW", "Zone percentage"),
    Feature("dzm_gl_var", "QK93", "Grey level variance"),
    Feature("dzm_zd_var", "7WT1", "Zone distance variance"),
    Feature("dzm_zd_entr", "GBDU", "Zone distance entropy"),
    Feature("ngt_coarseness", "QCDE", "Coarseness"),
    Feature("ngt_contrast", "65HE", "Contrast"),
    Feature("ngt_busyness", "NQ30", "Busyness"),
    Feature("ngt_complexity", "HDEZ", "Complexity"),
    Feature("ngt_strength", "1X9X", "Strength"),
    Feature("ngl_lde", "SODN", "Low dependence emphasis"),
    Feature("ngl_hde", "IMOQ", "High dependence emphasis"),
    Feature("ngl_lgce", "TL9H", "Low grey level count emphasis"),
    Feature("ngl_hgce", "OAE7", "High grey level count emphasis"),
    Feature("ngl_ldlge", "EQ3F", "Low dependence low grey level emphasis"),
    Feature("ngl_ldhge", "JA6D", "Low dependence high grey level emphasis"),
    Feature("ngl_hdlge", "NBZI", "High dependence low grey level emphasis"),
    Feature("ngl_hdhge", "9QMG", "High dependence high grey level emphasis"),
    Feature("ngl_glnu", "FP8K", "Grey level non-uniformity"),
    Feature("ngl_glnu_norm", "5SPA", "Normalised grey level non-uniformity"),
    Feature("ngl_dcnu", "Z87G", "Dependence count non-uniformity"),
    Feature("ngl_dcnu_norm", "OKJI", "Normalised dependence count non-uniformity"),
    Feature("ngl_dc_perc", "6XV8", "Dependence count percentage"),
    Feature("ngl_gl_var", "1PFV", "Grey level variance"),
    Feature("ngl_dc_var", "DNX2", "Dependence count variance"),
    Feature("ngl_dc_entr", "FCBV", "Dependence count entropy"),
    Feature("ngl_dc_energy", "CAS9", "Dependence count energy"),
)


def dimensions_of(aggregations: Sequence[str]) -> tuple[str, ...]:
    """Return the dimensions in which the wanted aggregations of directions work, for textures without directions."""
    return tuple(name for name in DIMENSIONS if any(item.rsplit("_", 1)[0] == name for item in aggregations))


def columns(aggregations: Sequence[str]) -> Iterator[tuple[str, Feature, str]]:
    """Yield the name of each value, its feature, and the code of its aggregation (empty where there is nothing to aggregate).

    Parameters
    ----------
    aggregations
        Some keys of ``AGGREGATIONS``.
    """
    for feature in FEATURES:
        if feature.family in DIRECTIONAL_FAMILIES:
            ways = [(name, AGGREGATIONS[name]) for name in AGGREGATIONS if name in aggregations]
        elif feature.family in OTHER_TEXTURE_FAMILIES:
            ways = [(name, DIMENSIONS[name]) for name in dimensions_of(aggregations)]
        else:
            yield feature.name, feature, ""
            continue
        for suffix, code in ways:
            yield f"{feature.name}_{suffix}", feature, code
