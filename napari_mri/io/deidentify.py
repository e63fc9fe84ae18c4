"""Takes the person out of DICOM files: the basic profile of PS3.15 Annex E, and a search for what is left.

Which element is removed, emptied or replaced is read from the tables of `dicom-anonymizer`, which
follow the standard's own table; here is how it is done: the same secret gives the same new UIDs and
the same shift of dates, so that the files of a study still belong together.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from napari_mri.core.errors import MissingExtra

_TABLES = ("dicomfields_2026c", "dicomfields_2024b", "dicomfields_2023")
_STANDARD_UIDS = "1.2.840.10008."
_DATES, _TEXTS = ("DA", "DT"), ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR")
_EMPTY_OR_DUMMY = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "PN": "Anonymous", "LO": "removed", "SH": "removed",
    "CS": "REMOVED", "ST": "removed", "LT": "removed", "UT": "removed", "UC": "removed", "AE": "REMOVED", "IS": "0",
    "DS": "0", "UR": "urn:removed",
}  # fmt: skip
# Private elements without a person in them that diffusion scans cannot be read without (PS3.15 table E.3.10-1).
_SAFE_PRIVATE = {
    ("SIEMENS MR HEADER", 0x0C), ("SIEMENS MR HEADER", 0x0D), ("SIEMENS MR HEADER", 0x0E), ("SIEMENS MR HEADER", 0x27),
    ("GEMS_ACQU_01", 0xBB), ("GEMS_ACQU_01", 0xBC), ("GEMS_ACQU_01", 0xBD), ("GEMS_PARM_01", 0x39),
    ("Philips Imaging DD 001", 0x03), ("Philips Imaging DD 001", 0x04), ("Philips MR Imaging DD 001", 0xB0),
    ("Philips MR Imaging DD 001", 0xB1), ("Philips MR Imaging DD 001", 0xB2), ("Philips MR Imaging DD 005", 0x0E),
    ("Philips MR Imaging DD 001", 0x0E), ("Philips MR Imaging DD 001", 0x0D), ("UIH.MRI", 0x09), ("Image Private Header", 0x09),
    ("Image Private Header", 0x37),
}  # fmt: skip
_ALWAYS_GONE = (
    range(0x5000, 0x5100),
    range(0x6000, 0x6100),
)  # curves and overlays: they may hold burned-in text
_PERSONAL = (
    "PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "AccessionNumber",
    "ReferringPhysicianName", "PhysiciansOfRecord", "PerformingPhysicianName", "OperatorsName", "PatientAddress",
    "PatientTelephoneNumbers", "PatientMotherBirthName", "PatientBirthDate", "InstitutionName", "StudyID",
    "RequestingPhysician", "ResponsiblePerson",
)  # fmt: skip
_NOT_PERSONAL = frozenset(
    ("unknown", "anonymous", "anonymized", "none", "removed", "patient", "test", "brain", "head")
)
_NO_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.104.", "1.2.840.10008.5.1.4.1.1.11.",
    "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.9.",
)  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """How to take the person out.

    Parameters
    ----------
    name : str
        New patient name and number; empty: ``ANON-`` and six signs made from the old number.
    shift_days : int or None
        Days added to every date; times stay. None removes dates and times, as the basic profile does.
    keep_diffusion : bool
        Keep the private elements that tell b-values and gradients and nothing about a person.
    secret : bytes
        The same secret gives the same new UIDs and names in another run. Keep it to yourself: who has
        it can tell whether an old UID belongs to a new one.
    """

    name: str = ""
    shift_days: int | None = None
    keep_diffusion: bool = True
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def new_uid(self, uid: str) -> str:
        """Return the UID that takes the place of another one, always the same."""
        digest = hmac.new(self.secret, b"uid" + uid.encode(), hashlib.sha256).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big') | 1 << 127}"

    def new_name(self, patient_id: str) -> str:
        """Return the name that takes the place of a patient's."""
        digest = hmac.new(self.secret, b"id" + patient_id.encode(), hashlib.sha256).hexdigest()
        return self.name or f"ANON-{digest[:6].upper()}"


@dataclass
class Removed:
    """What was done to one file: how many elements of each keyword, and what a person should look at.

    Holds no value of the file, so it can be shown and kept.
    """

    removed: Counter[str] = field(default_factory=Counter)
    emptied: Counter[str] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)
    private: int = 0
    warnings: list[str] = field(default_factory=list)

    def add(self, other: Removed) -> None:
        """Add what was done to another file."""
        self.removed.update(other.removed)
        self.emptied.update(other.emptied)
        self.replaced.update(other.replaced)
        self.private += other.private
        self.warnings += [warning for warning in other.warnings if warning not in self.warnings]


@cache
def _actions() -> tuple[dict[int, str], list[tuple[int, int, str]]]:
    """Return what to do with each tag: ``x`` remove, ``z`` empty, ``d`` dummy, ``u`` other UIDs; and for ranges of tags."""
    for name in _TABLES:
        try:
            module = import_module(f"dicomanonymizer.dicom_anonymization_databases.{name}")
            break
        except ModuleNotFoundError:
            continue
    else:
        raise MissingExtra(
            "De-identification needs the package dicom-anonymizer.",
            hint="pip install napari-mri-workbench[formats]",
        )
    chosen = {
        "X_TAGS": "x", "Z_TAGS": "z", "D_TAGS": "d", "U_TAGS": "u", "Z_D_TAGS": "d", "X_Z_TAGS": "z", "X_D_TAGS": "d",
        "X_Z_D_TAGS": "z", "X_Z_U_STAR_TAGS": "u",
    }  # fmt: skip
    tags: dict[int, str] = {}
    ranges: list[tuple[int, int, str]] = []
    for table, action in chosen.items():
        for tag in getattr(module, table):
            if len(tag) == 2:
                tags[tag[0] << 16 | tag[1]] = action
            elif len(tag) == 4:  # group, element and a mask for each
                ranges.append((tag[0] << 16 | tag[1], tag[2] << 16 | tag[3], action))
    return tags, ranges


def _action(tag: int) -> str:
    tags, ranges = _actions()
    if tag in tags:
        return tags[tag]
    return next((action for value, mask, action in ranges if tag & mask == value & mask), "")


def not_for_sharing(dataset: Any) -> str:
    """Return why a file should stay at home whatever is done to its header; empty where there is no reason."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class.startswith(_NO_IMAGES):
        return "a report, document or presentation, whose text cannot be cleaned"
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        return "its header says that text is burned into the image"
    return ""


def take_out(dataset: Any, rules: Rules) -> Removed:
    """Take the person out of a data set, in place.

    Parameters
    ----------
    dataset : pydicom Dataset
        With its file meta information, where it has one.
    rules : Rules

    Returns
    -------
    Removed

    Raises
    ------
    MissingExtra
        Without the tables of dicom-anonymizer.
    """
    report = Removed()
    personal = _personal(dataset)
    old_id = str(dataset.get("PatientID", "") or dataset.get("PatientName", ""))
    _burned_in(dataset, report)
    _walk(dataset, rules, report)
    dataset.PatientName = dataset.PatientID = rules.new_name(old_id)
    _search(dataset, personal, report)
    _sign(dataset, rules)
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        for keyword in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle", "PrivateInformation",
                        "PrivateInformationCreatorUID", "ReceivingApplicationEntityTitle"):  # fmt: skip
            if keyword in meta:
                delattr(meta, keyword)
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.preamble = bytes(128)
    return report


def _walk(dataset: Any, rules: Rules, report: Removed) -> None:
    for element in list(dataset):
        tag, keyword = element.tag, element.keyword or f"{element.tag}"
        if any(tag.group in gone for gone in _ALWAYS_GONE):
            del dataset[tag]
            report.removed["overlays and curves"] += 1
        elif tag.is_private:
            _private(dataset, element, rules, report)
        elif _is_moment(element) and rules.shift_days is not None:
            if element.VR in _DATES and element.value:
                element.value = _shifted(element.value, rules.shift_days)
                report.replaced[keyword] += 1
        else:
            _apply(dataset, element, _action(int(tag)), rules, report)


def _apply(dataset: Any, element: Any, action: str, rules: Rules, report: Removed) -> None:
    keyword = element.keyword or f"{element.tag}"
    if element.VR == "UI":
        if _other_uids(element, rules):
            report.replaced[keyword] += 1
    elif action == "x":
        del dataset[element.tag]
        report.removed[keyword] += 1
    elif element.VR == "SQ" and action != "z":
        for item in element.value:
            _walk(item, rules, report)
    elif action == "z" or (element.VR == "PN" and action != "d"):
        if element.value not in (None, "", b""):
            element.value = [] if element.VR == "SQ" else None
            report.emptied[keyword] += 1
    elif action == "d":
        element.value = _EMPTY_OR_DUMMY.get(element.VR)
        report.replaced[keyword] += 1


def _is_moment(element: Any) -> bool:
    birth = element.keyword in (
        "PatientBirthDate",
        "PatientBirthTime",
        "PatientBirthDateInAlternativeCalendar",
    )
    return element.VR in (*_DATES, "TM") and not birth


def _private(dataset: Any, element: Any, rules: Rules, report: Removed) -> None:
    tag = element.tag
    if rules.keep_diffusion and tag.is_private_creator:
        if any(creator == str(element.value).strip() for creator, _ in _SAFE_PRIVATE):
            return
    elif rules.keep_diffusion and tag.element >= 0x1000:
        creator = dataset.get((tag.group, tag.element >> 8))
        name = str(creator.value).strip() if creator is not None else ""
        if (name, tag.element & 0xFF) in _SAFE_PRIVATE and element.VR != "SQ":
            return
    del dataset[tag]
    report.private += 1


def _other_uids(element: Any, rules: Rules) -> bool:
    """Replace every UID but those that the standard itself gave out."""
    many = element.VM > 1
    old = [str(uid) for uid in (element.value if many else [element.value]) if uid]
    new = [uid if uid.startswith(_STANDARD_UIDS) else rules.new_uid(uid) for uid in old]
    if new == old:
        return False
    element.value = new if many else new[0]
    return True


def _shifted(value: Any, days: int) -> Any:
    import datetime

    if not isinstance(value, str) and hasattr(value, "__iter__"):
        return [_shifted(one, days) for one in value]
    text = str(value)
    try:
        day = datetime.datetime.strptime(text[:8], "%Y%m%d") + datetime.timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    return day.strftime("%Y%m%d") + text[8:]


def _personal(dataset: Any) -> list[str]:
    """Return the words of this file that tell a person: of names, numbers and the day of birth."""
    words: set[str] = set()
    for keyword in _PERSONAL:
        text = str(dataset.get(keyword, "") or "")
        # A name may be short; a short number would be found inside many innocent texts.
        least = 2 if keyword == "PatientName" else 4
        parts = (part.strip().lower() for part in re.split(r"[\^=\\,;\[\]']+", text))
        words |= {part for part in parts if len(part) >= least}
    return sorted(words - _NOT_PERSONAL)


def _search(dataset: Any, personal: list[str], report: Removed) -> None:
    """Empty every text that still holds a name, number or birth date of this file."""
    for item, element in _texts(dataset):
        if element.keyword in ("PatientName", "PatientID"):
            continue
        values = element.value if element.VM > 1 else [element.value]
        text = " ".join(str(value) for value in values).lower()
        # Codes such as SE or TR are no names.
        asked = [word for word in personal if len(word) >= 4 or element.VR not in ("CS", "AE")]
        if any(re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", text) for word in asked):
            item[element.tag].value = None
            report.emptied[element.keyword or str(element.tag)] += 1
            report.warnings.append(
                f"A name or number stood in {element.keyword or element.tag}, which was emptied."
            )


def _texts(dataset: Any) -> Iterator[tuple[Any, Any]]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in _TEXTS and element.value:
            yield dataset, element


def _burned_in(dataset: Any, report: Removed) -> None:
    """Flag images that may show text: captures of screens, and what a program drew."""
    kind = [str(part).upper() for part in dataset.get("ImageType", None) or []]
    if "MOSAIC" in kind:
        report.warnings.append(
            "Siemens mosaics lose the private header that tells their layout; convert them to NIfTI instead."
        )
    capture = str(dataset.get("SOPClassUID", "")).startswith("1.2.840.10008.5.1.4.1.1.7")
    drawn = "SECONDARY" in kind and bool({"SCREEN SAVE", "OTHER", "CAPTURE"} & set(kind))
    colour = str(dataset.get("PhotometricInterpretation", "")).startswith(("RGB", "YBR", "PALETTE"))
    if capture or drawn or colour:
        report.warnings.append(
            "An image is a capture, drawing or colour map, which may show names as text: look at it."
        )


def _sign(dataset: Any, rules: Rules) -> None:
    from pydicom import Dataset, Sequence

    codes = [("113100", "Basic Application Confidentiality Profile")]
    if rules.shift_days is not None:
        codes.append(("113107", "Retain Longitudinal Temporal Information Modified Dates Option"))
    if rules.keep_diffusion:
        codes.append(("113111", "Retain Safe Private Option"))
    done = []
    for value, meaning in codes:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        done.append(code)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "napari_mri: PS3.15 basic profile"
    dataset.DeidentificationMethodCodeSequence = Sequence(done)
    dataset.LongitudinalTemporalInformationModified = "REMOVED" if rules.shift_days is None else "MODIFIED"
