"""What the numbers in public data sets' label maps mean. Names are added; a value is never changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from napari_mri.core.errors import BadOption
from napari_mri.core.volume import Labels
from napari_mri.io.label_tables import beside, with_table


@dataclass(frozen=True)
class Convention:
    """The label values of one data set.

    Parameters
    ----------
    name, title : str
    names : mapping of int to str
    hints : tuple of str
        Regular expressions; a path that one of them matches (any case) speaks for this data set.
    """

    name: str
    title: str
    names: Mapping[int, str]
    hints: tuple[str, ...] = field(default=())

    def fits(self, values: Iterable[int]) -> bool:
        """Tell whether every value but 0 has a name here."""
        return all(value in self.names for value in values if value != 0)


def _listed(words: str) -> dict[int, str]:
    return dict(enumerate(words.split(), 1))


def _spider() -> dict[int, str]:
    names = {n: f"vertebra {n} from below" for n in range(1, 26)}
    names |= {100 + n: f"vertebra {n} from below, partly visible" for n in range(1, 26)}
    names |= {200 + n: f"disc below vertebra {n}" for n in range(1, 26)}
    return names | {100: "spinal canal"}


_TRUNK = """spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right adrenal_gland_left"""
_TOTAL_MR = f"""{_TRUNK} lung_left lung_right esophagus small_bowel duodenum colon urinary_bladder prostate sacrum
vertebrae intervertebral_discs spinal_cord heart aorta inferior_vena_cava portal_vein_and_splenic_vein
iliac_artery_left iliac_artery_right iliac_vena_left iliac_vena_right humerus_left humerus_right scapula_left
scapula_right clavicula_left clavicula_right femur_left femur_right hip_left hip_right gluteus_maximus_left
gluteus_maximus_right gluteus_medius_left gluteus_medius_right gluteus_minimus_left gluteus_minimus_right
autochthon_left autochthon_right iliopsoas_left iliopsoas_right brain"""
_TOTAL = f"""{_TRUNK} lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right lung_middle_lobe_right
lung_lower_lobe_right esophagus trachea thyroid_gland small_bowel duodenum colon urinary_bladder prostate
kidney_cyst_left kidney_cyst_right sacrum vertebrae_S1 vertebrae_L5 vertebrae_L4 vertebrae_L3 vertebrae_L2
vertebrae_L1 vertebrae_T12 vertebrae_T11 vertebrae_T10 vertebrae_T9 vertebrae_T8 vertebrae_T7 vertebrae_T6
vertebrae_T5 vertebrae_T4 vertebrae_T3 vertebrae_T2 vertebrae_T1 vertebrae_C7 vertebrae_C6 vertebrae_C5
vertebrae_C4 vertebrae_C3 vertebrae_C2 vertebrae_C1 heart aorta pulmonary_vein brachiocephalic_trunk
subclavian_artery_right subclavian_artery_left common_carotid_artery_right common_carotid_artery_left
brachiocephalic_vein_left brachiocephalic_vein_right atrial_appendage_left superior_vena_cava inferior_vena_cava
portal_vein_and_splenic_vein iliac_artery_left iliac_artery_right iliac_vena_left iliac_vena_right humerus_left
humerus_right scapula_left scapula_right clavicula_left clavicula_right femur_left femur_right hip_left hip_right
spinal_cord gluteus_maximus_left gluteus_maximus_right gluteus_medius_left gluteus_medius_right
gluteus_minimus_left gluteus_minimus_right autochthon_left autochthon_right iliopsoas_left iliopsoas_right brain
skull {" ".join(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13))} sternum costal_cartilages"""
_AMOS = """spleen kidney_right kidney_left gallbladder esophagus liver stomach aorta inferior_vena_cava pancreas
adrenal_gland_right adrenal_gland_left duodenum urinary_bladder prostate_or_uterus"""
_SIDED = {
    "Cerebral-Exterior": (1, 40), "Cerebral-White-Matter": (2, 41), "Cerebral-Cortex": (3, 42),
    "Lateral-Ventricle": (4, 43), "Inf-Lat-Vent": (5, 44), "Cerebellum-Exterior": (6, 45),
    "Cerebellum-White-Matter": (7, 46), "Cerebellum-Cortex": (8, 47), "Thalamus": (10, 49), "Caudate": (11, 50),
    "Putamen": (12, 51), "Pallidum": (13, 52), "Hippocampus": (17, 53), "Amygdala": (18, 54),
    "Accumbens-area": (26, 58), "Substancia-Nigra": (27, 59), "VentralDC": (28, 60), "vessel": (30, 62),
    "choroid-plexus": (31, 63),
}  # fmt: skip
_MIDLINE = {
    14: "3rd-Ventricle", 15: "4th-Ventricle", 16: "Brain-Stem", 24: "CSF", 72: "5th-Ventricle",
    77: "WM-hypointensities", 80: "non-WM-hypointensities", 85: "Optic-Chiasm", 251: "CC_Posterior",
    252: "CC_Mid_Posterior", 253: "CC_Central", 254: "CC_Mid_Anterior", 255: "CC_Anterior",
}  # fmt: skip
_GYRI = """bankssts caudalanteriorcingulate caudalmiddlefrontal corpuscallosum cuneus entorhinal fusiform
inferiorparietal inferiortemporal isthmuscingulate lateraloccipital lateralorbitofrontal lingual medialorbitofrontal
middletemporal parahippocampal paracentral parsopercularis parsorbitalis parstriangularis pericalcarine postcentral
posteriorcingulate precentral precuneus rostralanteriorcingulate rostralmiddlefrontal superiorfrontal
superiorparietal superiortemporal supramarginal frontalpole temporalpole transversetemporal insula"""


def _freesurfer() -> dict[int, str]:
    names = dict(_MIDLINE)
    for name, (left, right) in _SIDED.items():
        names |= {left: f"Left-{name}", right: f"Right-{name}"}
    for n, name in _listed(_GYRI).items():
        names |= {1000 + n: f"ctx-lh-{name}", 2000 + n: f"ctx-rh-{name}"}
    return names


_BRATS_PARTS = "necrotic and non-enhancing tumour core", "peritumoural oedema", "enhancing tumour"
ALL: tuple[Convention, ...] = (
    Convention(
        "brats", "BraTS to 2022: 1, 2, 4", dict(zip((1, 2, 4), _BRATS_PARTS, strict=True)),
        (r"brats.?(12|13|14|15|16|17|18|19|20|21|22|20[12]\d)", r"brats"),
    ),
    Convention(
        "brats2023", "BraTS from 2023: 1, 2, 3",
        {**dict(zip((1, 2, 3), _BRATS_PARTS, strict=True)), 4: "resection cavity"}, (r"brats.?(2023|2024|2025|gli|men|met|ped|ssa)", r"brats"),
    ),
    Convention("spider", "SPIDER lumbar spine", _spider(), (r"spider", r"\b\d+_(t1|t2|t2_space)\.mha$")),
    Convention("isles", "ISLES stroke lesion", {1: "stroke lesion"}, (r"isles", r"strokecase", r"_(lesion-)?msk\.")),
    Convention(
        "skm-tea", "SKM-TEA knee",
        {1: "patellar cartilage", 2: "femoral cartilage", 3: "tibial cartilage, medial", 4: "tibial cartilage, lateral",
         5: "meniscus, medial", 6: "meniscus, lateral"},
        (r"skm.?tea", r"\bMTR_\d+"),
    ),
    Convention(
        "acdc", "ACDC heart",
        {1: "right ventricular cavity", 2: "left ventricular myocardium", 3: "left ventricular cavity"},
        (r"acdc", r"patient\d{3}_frame\d\d_gt"),
    ),
    Convention("amos", "AMOS abdominal organs", _listed(_AMOS), (r"amos",)),
    Convention("total-mr", "TotalSegmentator MR", _listed(_TOTAL_MR), (r"total.?seg\w*.?mr", r"total_mr")),
    Convention("total", "TotalSegmentator 2", _listed(_TOTAL), (r"total.?seg", r"total_?v2")),
    Convention("freesurfer", "FreeSurfer aseg and aparc", _freesurfer(), (r"aseg", r"aparc", r"freesurfer", r"synthseg")),
    Convention("picai", "PI-CAI prostate lesions", {n: f"cancer, ISUP grade {n}" for n in range(1, 6)}, (r"pi.?cai",)),
    Convention(
        "prostate-zones", "Prostate zones", {1: "peripheral zone", 2: "transition zone"},
        (r"prostate\w*_?zone", r"task05_prostate"),
    ),
)  # fmt: skip


def find(name: str) -> Convention:
    """Return a convention by name.

    Raises
    ------
    BadOption
    """
    for one in ALL:
        if one.name == name:
            return one
    raise BadOption(f"There is no convention '{name}'.", hint=f"Known: {', '.join(one.name for one in ALL)}.")


def suggested(values: Iterable[int], path: str) -> Convention | None:
    """Return the convention that a path speaks for and all values fit; None where in doubt.

    Parameters
    ----------
    values : iterable of int
        The label values that occur.
    path : str
        File name, with as many folders as are known.
    """
    present = tuple(values)
    if not any(present):
        return None
    best: tuple[int, Convention] | None = None
    for one in ALL:
        if not one.fits(present):
            continue
        reach = max((len(hint) for hint in one.hints if re.search(hint, path, re.I)), default=0)
        if reach and (best is None or reach > best[0]):
            best = reach, one
    return best[1] if best else None


def named(labels: Labels, convention: Convention) -> Labels:
    """Return labels with a convention's names for the values that occur and have none; values stay."""
    names = {value: convention.names[value] for value in labels.values if value in convention.names}
    return replace(labels, names={**names, **labels.names})


def dressed(labels: Labels, path: Path) -> Labels:
    """Return labels with the names that the files around them tell; those that have names stay.

    A table beside the file comes first (see `label_tables.beside`), then a convention that the
    last three parts of the path speak for, which is told among the warnings.

    Parameters
    ----------
    labels : Labels
    path : Path
        Where they were read from.
    """
    if labels.names:
        return labels
    table = beside(path)
    if table is not None:
        return with_table(labels, table)
    convention = suggested(labels.values, "/".join(path.parts[-3:]))
    if convention is None:
        return labels
    told = f"The names of the labels are those of {convention.title}, guessed from the path."
    labels = named(labels, convention)
    return replace(labels, origin=replace(labels.origin, warnings=(*labels.origin.warnings, told)))
