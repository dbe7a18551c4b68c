"""The tables of the store: every column with its type, meaning and unit."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

#: Raised when a column changes its meaning; written into every file.
SCHEMA_VERSION = "1"


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"meaning": meaning}) for name, kind, meaning in columns]
    return pa.schema(fields, metadata={"signsym_schema": SCHEMA_VERSION})


#: Columns of outcomes that an attack measures of each image besides: `signsym_core.attacks.base.Attack.measures`.
MEASURES = {
    "grad_l1": "L1 norm of the exact gradient of the cross-entropy at the clean image, over [0, 1] pixels",
    "grad_l2": "its L2 norm",
    "cosine": "cosine of the gradient that the attack follows with the exact one, at the clean image",
    "sign_agreement": "share of the pixels where both have the same sign, 0 .. 1",
    "rise": "by how much the cross-entropy grows from the clean image x to x + epsilon sign(exact gradient), in [0, 1]",
    "linearity": "error of the first-order prediction of that growth",
}

#: Columns that older files of the same version do not have; they are read as nulls.
ADDED = frozenset(
    {"task_params", "surrogate_job", "gpu_share", "gpu_peak", "gpu_total", "queries", "failed_starts", "distance"}
    | {"precision", "deterministic", "finetune_precision", "finetune_deterministic", "finetune_device"}
    | {"nonfinite_grad", "finetune_epoch", "work", "surrogate_rule", "surrogate_rule_params", "surrogate_seed"}
    | {"confidence", "revision", *MEASURES}
)

_text, _number, _count = pa.string(), pa.float64(), pa.int64()

#: A row for each cell.
RESULTS = _schema(
    ("cell", _text, "key of the cell: no two different results share it"),
    ("job", _text, "key of the attack job that made the row"),
    ("finetune_job", _text, "key of the fine-tune job whose model was attacked"),
    ("task", _text, "task"),
    ("task_params", _text, "JSON of the task's parameters that are not the default; null in older files"),
    ("dataset", _text, "data set"),
    ("dataset_params", _text, "JSON of the data set's parameters that are not the default"),
    ("backbone", _text, "backbone"),
    ("backbone_params", _text, "JSON of the backbone's parameters that are not the default"),
    (
        "weights",
        _text,
        "JSON of what the fine-tune started from; with seed: same, the training of its own seed by its key at 0",
    ),
    ("finetune", _text, "JSON of the fine-tune's settings that are not the default"),
    ("rule", _text, "learning rule"),
    ("rule_params", _text, "JSON of the rule's parameters that are not the default"),
    ("seed", _count, "seed of the fine-tune and of the attack"),
    ("attack", _text, "attack; none for clean performance"),
    ("attack_params", _text, "JSON of the attack's parameters that are not the default"),
    (
        "gradient",
        _text,
        "source of the attack's gradient: feedback, exact, mixed, transfer, eot, hybrid; transfer from RULE, with "
        "(other seed), where the surrogate is not the BP twin; none where none is",
    ),
    ("surrogate_job", _text, "fine-tune job whose model the images were made on; null: the attacked one"),
    (
        "surrogate_rule",
        _text,
        "learning rule of the surrogate; null where the gradient needs none, and in older files: bp",
    ),
    ("surrogate_rule_params", _text, "JSON of that rule's parameters that are not the default; null likewise"),
    ("surrogate_seed", _text, "same or other: the surrogate's seed beside the attacked model's; null likewise: same"),
    ("epsilon", _number, "radius in the [0, 1] pixel range, in the norm that the column norm names"),
    ("epsilon_label", _text, "the radius as the grid wrote it"),
    ("norm", _text, "norm of epsilon: linf or l2"),
    ("metric", _text, "top1 or map"),
    ("value", _number, "the metric, 0 .. 1"),
    ("n", _count, "images that the value is the mean of"),
    ("chance", _number, "value of the best constant prediction, in retrieval of a random ranking, 0 .. 1"),
    ("steps", _count, "gradient steps of the attack"),
    ("step_size", _number, "length of one step, L∞, in the [0, 1] pixel range"),
    ("reach", _number, "mean over images of the size of the change in the norm, over epsilon"),
    ("queries", _number, "mean over images of how often the model was asked; null where it is not counted"),
    (
        "failed_starts",
        _count,
        "images that nothing was found for, not even a start, which count as not broken; null where none is sought",
    ),
    (
        "nonfinite_grad",
        _count,
        "images with entries of a gradient that were NaN or infinite and counted as 0; null where no gradient was "
        "asked for, and in older files",
    ),
    ("forwards", _count, "forward passes of the whole attack job, in images"),
    ("backwards", _count, "backward passes of the whole attack job, in images"),
    ("git", _text, "commit of the code, with + where files were changed"),
    (
        "revision",
        _count,
        "how often new versions of signsym changed the numbers of the attack or of its model's training since the "
        "column came; of two results of one point that of the higher one counts; null in older files: 0",
    ),
    ("versions", _text, "JSON of the versions of python and the libraries"),
    ("device", _text, "device that computed the row"),
    (
        "precision",
        _text,
        "float32, tf32 or bf16: arithmetic of the attack and its verdict; null in older files: float32 on a CPU, "
        "tf32 on a GPU",
    ),
    (
        "deterministic",
        pa.bool_(),
        "whether the attack's kernels give the same bits again; null in older files: on a GPU they need not",
    ),
    ("finetune_precision", _text, "arithmetic of the fine-tune, as precision"),
    ("finetune_deterministic", pa.bool_(), "whether the fine-tune's kernels give the same bits again, likewise"),
    ("finetune_device", _text, "device that fine-tuned the model; null in older files"),
    (
        "finetune_epoch",
        _count,
        "epoch of the fine-tune, from 1, whose model was attacked: the last or the best one; 0: none was trained; "
        "null in older files",
    ),
    ("gpu_share", _number, "GPUs that the attack job was given; null in files of older versions"),
    ("gpu_peak", _count, "bytes of its tensors on the GPU at most; null on a CPU"),
    ("gpu_total", _count, "bytes of memory of the GPU; null on a CPU"),
    ("seconds", _number, "seconds that the attack job took"),
    ("finished_at", pa.timestamp("ms", tz="UTC"), "when the job finished"),
)

#: A row for each cell and image.
OUTCOMES = _schema(
    ("cell", _text, "key of the cell"),
    ("image", _count, "index of the image in its data set's test split"),
    ("robust", pa.bool_(), "the model still handles the adversarial image rightly; null in retrieval"),
    ("ap", pa.float32(), "average precision of the query; null in classification"),
    ("linf", pa.float32(), "largest change of a pixel"),
    ("queries", _count, "how often the model was asked about the image; null where it is not counted"),
    (
        "distance",
        pa.float64(),
        "size of the smallest perturbation found, in the norm: 0 for an image lost already, infinity without a "
        "start; null where none is looked for",
    ),
    ("zero_grad", pa.bool_(), "the loss had no gradient at the clean image; null where none was asked for"),
    (
        "nonfinite_grad",
        _count,
        "entries of the gradient that were NaN or infinite and counted as 0, of the worst one that the attack "
        "followed; null where none was asked for, and in older files",
    ),
    (
        "confidence",
        pa.float32(),
        "probability of the class that a clean image is given, by softmax; null under attack, in retrieval, where "
        "images have several labels, and in older files",
    ),
    *((name, pa.float32(), f"{meaning}; null where it was not measured") for name, meaning in MEASURES.items()),
)


def outcomes_with(measured: Collection[str]) -> pa.Schema:
    """OUTCOMES with those alone of the columns of MEASURES and `confidence` that are measured.

    Most files have none of them, and a column of nulls has the bytes of its description.
    """
    optional = {"confidence", *MEASURES} - set(measured)
    return pa.schema([field for field in OUTCOMES if field.name not in optional], metadata=OUTCOMES.metadata)


#: A few adversarial images for each cell.
EXAMPLES = _schema(
    ("cell", _text, "key of the cell"),
    ("image", _count, "index of the image in its data set's test split"),
    ("label", _text, "class of the image"),
    ("predicted", _text, "class that the model gave the adversarial image"),
    ("clean", pa.binary(), "the clean image as PNG"),
    ("adversarial", pa.binary(), "the adversarial image as PNG, rounded to 8 bits"),
)

#: A row for each weight and epoch of a fine-tune, on some images of the epoch's last step but one.
ALIGNMENT = _schema(
    ("job", _text, "key of the fine-tune job"),
    ("epoch", _count, "epoch, from 1"),
    ("step", _count, "step in the epoch, from 1, before the optimiser's update"),
    ("layer", _text, "name of the layer"),
    ("angle", _number, "angle of B to W in degrees; null where no matrix stands for W"),
    ("feedback_ratio", _number, "norm of B over that of W; null likewise"),
    ("cosine", _number, "cosine of the rule's gradient of the weight to BP's; null where one of them is 0"),
    ("norm", _number, "norm of the rule's gradient"),
    ("norm_bp", _number, "norm of BP's gradient"),
    ("ratio", _number, "norm of the rule's gradient over that of BP's; null where the latter is 0"),
    ("sign_agreement", _number, "share of the entries of both gradients with the same sign, 0 .. 1"),
)

#: A row for each image of each split of a data set, in the splits' orders; the classes are in the file's metadata.
FINGERPRINTS = _schema(
    ("split", _text, "train, test, database or validation"),
    ("image", _count, "number of the image in its data set's own order, as in the other tables"),
    ("labels", pa.list_(_count), "numbers of the image's classes"),
    ("digest", pa.binary(16), "first 16 bytes of the SHA-256 of the image's file, or of its pixels"),
)

#: What older stores have in the place of fingerprints.
SPLITS = _schema(
    ("split", _text, "train, test, database or validation"),
    ("image", _count, "number of the image in its data set's own order, as in the other tables"),
)

#: A row for each job that failed for good.
FAILURES = _schema(
    ("job", _text, "key of the job"),
    ("work", _text, "key of what it does, whichever of an attack's cells were left; null in older files"),
    ("title", _text, "what the job was"),
    ("attempt", _count, "how often it was tried"),
    ("error", _text, "last line of the traceback"),
    ("traceback", _text, "the whole traceback"),
    ("host", _text, "host that ran the last attempt"),
    ("failed_at", pa.timestamp("ms", tz="UTC"), "when it failed"),
)
