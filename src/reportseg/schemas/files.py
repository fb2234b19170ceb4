"""Every file by its name: `reportseg config schema` and docs/formats.md are generated from here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .bundle import BundleConfig
from .comparison import COMPARED, Comparison
from .data import DatasetFile
from .knowledge import BankFile
from .metrics import Metrics
from .prediction import PredictionFile, ReportFile
from .studies import Ablation, CostStudy, DataStudy, StudyPlan, TextStudy, TransferStudy
from .training import EnvFile, TrainingFile

FILES: dict[str, type[BaseModel]] = {
    "bundle/config.json": BundleConfig,
    "bundle/training.json": TrainingFile,
    "env.json": EnvFile,
    "metrics.json": Metrics,
    "compare.json": Comparison,
    "plan.json": StudyPlan,
    "ablate.json": Ablation,
    "text.json": TextStudy,
    "data.json": DataStudy,
    "transfer.json": TransferStudy,
    "cost.json": CostStudy,
    "prediction.json": PredictionFile,
    "report.json": ReportFile,
    "dataset.json": DatasetFile,
    "bank.json": BankFile,
}


def _columns(names: str) -> tuple[str, ...]:
    return tuple(names.split())


CSV_COLUMNS: dict[str, tuple[str, ...]] = {
    "manifest.csv": _columns(
        "image mask text id split patient laterality flip_safe text_source label present complete subsets slice study spacing_mm"
    ),
    "cases.csv": _columns(
        "id patient text_name tp fp fn dice iou hd95 nsd presence present_truth area_px uncertainty disagreement warnings"
    ),
    "volumes.csv": _columns("study patient label slices tp fp fn dice iou hd95 nsd volume_ml true_volume_ml warnings"),
    "table.csv": (
        *_columns("method text seeds"),
        *(f"{score}{part}" for score in COMPARED for part in ("", "_low", "_high")),
        *(f"{score}_minus_reference{part}" for score in COMPARED for part in ("", "_low", "_high")),
        *_columns("p p_holm win tie loss"),
    ),
    "predictions.csv": _columns(
        "id row finding polarity status mask presence area_px volume_ml side laterality uncertainty disagreement warnings"
    ),
    "failures.csv": _columns("id code what fix"),
}


def all_schemas() -> dict[str, Any]:
    """JSON schema of every JSON file, and the columns of every CSV, by file name."""
    schemas: dict[str, Any] = {name: model.model_json_schema() for name, model in FILES.items()}
    return schemas | {name: {"type": "csv", "columns": list(columns)} for name, columns in CSV_COLUMNS.items()}
