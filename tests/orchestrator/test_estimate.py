"""What a plan costs: measured where the store knows, stated where not, against a hand count."""

from __future__ import annotations

import dataclasses
import os
import re
import time

import pytest
import storerows
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.gridfile.cells import Stages
from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import STAGES, Resources
from orchestrator.plan import cost, measured
from orchestrator.plan.compile import compile_plan
from orchestrator.plan.estimate import StoreSurvey, hours, longest_chain, survey_store, unshared
from orchestrator.plan.rates import CORE, H100, Device, Network, network_of
from orchestrator.plan.speeds import is_kind
from orchestrator.store import Store, tables
from orchestrator.store.apart import apart, calling_apart
from signsym_core.attacks import ATTACKS
from signsym_core.backbones import BACKBONES
from signsym_core.datasets import DATASETS
from signsym_core.tasks.classification import Classification
from signsym_core.training.settings import FineTune


@pytest.fixture
def plan(tiny):
    return compile_plan(load(tiny), set(), set())


def put(store, jobs, slower, device="cpu x 1", **more):
    """Finished jobs that took `slower(job)` times as long as was stated."""
    for key, job in jobs.items():
        ran = {"device": device, "precision": job.pace[2], "seconds": job.default_seconds * slower(job)} | more
        if job.kind != "attack":
            store.save_model(key, {}, storerows.record(key, dict(job.spec)) | ran)
            continue
        _, backbone, dataset, attack = job.group
        epsilons = {epsilon for _, epsilon, _ in job.spec["points"]}
        above = sum(epsilon > 0 for epsilon in epsilons)
        made = cost.passes(ATTACKS.build(attack), job.spec["gradient"], above, len(epsilons) > above)
        ran |= {"backbone": backbone, "dataset": dataset, "attack": attack, "finetune_job": job.spec["model"]}
        ran |= {"n": 60, "forwards": int(60 * sum(made)), "backwards": int(60 * made.gradients)}
        ran |= {"gpu_peak": 5, "gpu_total": 10, "job": key, "hits": 30}
        cells = {f"{key} {epsilon}": epsilon for epsilon in epsilons}
        outcomes = [row for cell in cells for row in storerows.outcomes(cell, 60, 30)]
        store.write_table("outcomes", key, outcomes, tables.OUTCOMES)
        rows = [
            storerows.result(cell, epsilon=epsilon, gradient=job.spec["gradient"], **ran)
            for cell, epsilon in cells.items()
        ]
        store.write_table("results", key, rows, tables.RESULTS)


def slowly(job):
    """How many times slower than stated each kind of job was."""
    return {"training": 7.0, "attack": 2.0}[job.pace[0]] * (1.5 if job.pace[-1] == "pgd" else 1)


def test_a_survey_says_how_many_models_and_bytes_it_has_read(plan, tmp_path):
    store, told = Store(str(tmp_path)), []
    put(store, plan.jobs, slowly)
    survey_store(store, progress=lambda *words: told.append(words))
    models = sum(job.kind != "attack" for job in plan.jobs.values())
    read = "kB of outcomes read with their results"
    assert told[:models] == [("models looked at", number, models) for number in range(models)]
    size = sum(path.stat().st_size for path in (tmp_path / "outcomes").iterdir()) // 1000
    assert told[-1] == (read, size, size)


def test_a_plan_is_what_was_stated_times_how_much_slower_the_store_was(plan, tmp_path):
    store, jobs = Store(str(tmp_path)), plan.jobs.values()
    stated = {key: job.default_seconds for key, job in plan.jobs.items()}
    assert survey_store(store).estimates(jobs) == stated
    put(store, plan.jobs, slowly)
    found = survey_store(store)
    assert found.estimates(jobs) == pytest.approx({job.key: slowly(job) * stated[job.key] for job in jobs})
    assert found.memory["attack", "smallcnn", "digits", "pgd"] == (5, 10)
    assert found.done_models == {key for key, job in plan.jobs.items() if job.kind != "attack"}


def test_a_measured_size_says_how_fast_another_one_is(tiny, plan, tmp_path):
    """Twice the side, other epsilons and steps, an attack and a rule that were not measured; not another device."""
    store = Store(str(tmp_path))
    put(store, plan.jobs, slowly)
    found = survey_store(store)
    attacks = "[{name: [fgsm, bim], epsilon: [0.1, 0.2]}, {name: pgd, steps: 50, epsilon: 0.1}]"
    sets = ["experiments.0.dataset.size=16", f"experiments.0.attacks={attacks}", "experiments.0.rule=[usf, fa]"]
    larger = compile_plan(load(tiny, sets), set(), set()).jobs.values()
    for job in larger:
        # Of an attack without measurements: the median of all attacks on the network.
        expected = 2.0 if job.pace[-1] == "bim" else slowly(job)
        assert found.ratio(job) == pytest.approx(expected), job.title
        assert (len(found.similar(job)) == len(job.pace)) == (job.pace[-1] not in ("bim", "fa"))
    for setting in ("gpu: 1", "gpu: 1, accelerator_type: A100"):
        on_gpu = compile_plan(load(tiny, [f"experiments.0.resources={{{setting}}}"]), set(), set()).jobs.values()
        assert {found.similar(job) for job in on_gpu} == {()}


def test_the_gpu_that_was_measured_is_the_one_that_is_asked_for(tiny, tmp_path):
    store = Store(str(tmp_path))

    def jobs(resources):
        return compile_plan(load(tiny, [f"experiments.0.resources={{{resources}}}"]), set(), set()).jobs

    put(store, jobs("gpu: 1"), lambda job: 3.0, "NVIDIA A100-SXM4-80GB", gpu_share=1.0)
    found = survey_store(store)
    for resources in ("gpu: 1", "gpu: auto", "gpu: 1, accelerator_type: A100-80G", "gpu: 1, accelerator_type: A100"):
        assert all(found.ratio(job) == pytest.approx(3.0) for job in jobs(resources).values())
    half = jobs("gpu: 0.5")
    for key, job in jobs("gpu: 1").items():
        assert half[key].default_seconds == pytest.approx(2 * job.default_seconds)
    assert {found.ratio(job) for job in jobs("gpu: 1, accelerator_type: H100").values()} == {1.0}
    assert not is_kind("NVIDIA A100-SXM4-80GB", "A10")


def took(seconds, share, end, planned=10.0):
    return measured.JobTime(
        pace=("a", "b", "c"), seconds=seconds, share=share, end=end, planned=planned, counted=planned
    )


@pytest.mark.parametrize(
    "jobs",
    [
        # Four at once on a quarter each; one alone with a quarter of the memory; one that had the GPU.
        [took(40, 0.25, 40)] * 4,
        [took(10, 0.25, 40)],
        [took(10, 1.0, 40)],
        # Two at once, then the longer one alone for as long again: 10 s of 20, and all of 10 s.
        [took(20, 0.5, 20), took(30, 0.5, 30, planned=20.0)],
        # Without a time when it ended: as if it had been given all of the GPU.
        [took(10, 0.5, float("nan"))],
        [took(10, 0.0, 40)] * 2,
    ],
)
def test_a_job_beside_others_counts_with_its_part_of_the_gpu(jobs):
    assert measured.ratios(jobs)["a", "b", "c"] == pytest.approx(1.0, rel=0.01)


def test_a_long_job_weighs_more_than_many_short_ones():
    jobs = [took(5, 0, 0, planned=1.0)] * 9 + [took(20, 0, 0, planned=10.0)]
    assert measured.ratios(jobs) == {("a", "b", "c"): 2.0}


@pytest.mark.slow
def test_what_happens_in_another_process_is_told_in_this_one():
    with apart(sorted, (3, 1)) as result:
        assert result() == [1, 3]
    with apart(int, "three") as result, pytest.raises(ValueError, match="three"):
        result()
    with apart(os._exit, 3) as result, pytest.raises(ChildProcessError, match="ended early, with status 3"):
        result()
    with calling_apart() as call:
        first, second, wrong = call(os.getpid), call(os.getpid), call(int, "three")
        assert second() == first() != os.getpid()
        with pytest.raises(ValueError, match="three"):
            wrong()
    # What nobody waits for is ended.
    with pytest.raises(ZeroDivisionError), apart(time.sleep, 3600):
        1 / 0  # noqa: B018


def test_hours_chain_and_saving_by_hand(plan):
    seconds = {
        key: {"pretrain": 3600.0, "finetune": 1800.0, "attack": 900.0}[job.kind] for key, job in plan.jobs.items()
    }
    # One pre-training, three fine-tunes and 13 attack jobs, a core each.
    assert hours(plan.jobs.values(), seconds, "cpu") == pytest.approx(1 + 3 * 0.5 + 13 * 0.25)
    assert hours(plan.jobs.values(), seconds, "gpu") == 0
    assert longest_chain(plan, seconds) == pytest.approx(3600 + 1800 + 900)
    # 27 cells would need 27 fine-tunes: 24 more, or all of them where the three are done.
    assert unshared(plan, seconds, StoreSurvey()) == pytest.approx(24 * 0.5)
    models = {key: {"seconds": 1800.0} for key, job in plan.jobs.items() if job.kind == "finetune"}
    left = dataclasses.replace(plan, jobs={key: job for key, job in plan.jobs.items() if job.kind == "attack"})
    assert unshared(left, seconds, StoreSurvey(trained=models)) == pytest.approx(27 * 0.5)


def test_a_stated_time_is_its_arithmetic():
    """ResNet-18 at 224 pixels: 1.81e9 multiply-adds, 60 layers with 7.48 million outputs, 11.2 million weights."""
    backbone, dataset = BACKBONES.build("resnet18"), DATASETS.build("cifar10", size=224)
    settings, rates = FineTune(epochs=20, batch_size=50, precision="tf32"), H100
    step = 50 * (3 * 1.8136e9 / rates.products["tf32"] + 5 * 4 * 7.4767e6 / rates.bandwidth) + 60 * rates.step
    step += 11.18e6 * rates.weight
    expected = rates.training + 20 * 1000 * step + 21 * 4 * 4 * 11.18e6 / cost.WRITTEN
    task = Classification()
    assert cost.training(task, backbone, dataset, settings, Device(gpu=True)) == pytest.approx(expected, rel=1e-3)
    short = dataclasses.replace(settings, steps=500)
    expected = rates.training + 500 * step + 1.5 * 4 * 4 * 11.18e6 / cost.WRITTEN
    assert cost.training(task, backbone, dataset, short, Device(gpu=True)) == pytest.approx(expected, rel=1e-3)
    # PGD with 5 steps at three epsilons and at 0, 1,000 images: 15 gradients of two passes, four forward passes.
    network, passes = network_of(backbone, (224, 224)), cost.passes(ATTACKS.build("pgd"), "feedback", 3, clean=True)
    products = (15 * 2 + 4) * 1.8136e9 / CORE.products["float32"]
    traffic = (15 * 5 + 4 * 1.5) * 4 * 7.4767e6 / CORE.bandwidth
    expected = CORE.attack + 1000 * (products + traffic) / 4 + 4 * 11.18e6 / cost.READ
    found = cost.attacking(network, passes, 1000, "float32", Device(gpu=False, cores=4))
    assert found == pytest.approx(expected, rel=1e-3)


def test_the_steps_of_an_adversarial_training_make_their_examples_first():
    """PGD with 5 steps: five gradients of two passes beside each step; a mean of two sources has twice as many."""
    backbone, dataset, device = BACKBONES.build("resnet18"), DATASETS.build("cifar10", size=224), Device(gpu=True)
    plain = FineTune(epochs=2, batch_size=50)
    before = cost.training(Classification(), backbone, dataset, plain, device)
    gradient = 50 * (2 * 1.8136e9 / H100.products["tf32"] + 5 * 4 * 7.4767e6 / H100.bandwidth)
    for source, gradients in (("exact", 5), ("feedback", 5), ("mixed", 10)):
        attack = {"name": "pgd", "epsilon": 0.1, "steps": 5, "gradient": source}
        found = cost.training(
            Classification(), backbone, dataset, dataclasses.replace(plain, adversarial=attack), device
        )
        assert found - before == pytest.approx(2 * 1000 * gradients * gradient, rel=0.01)
    noise = dataclasses.replace(plain, adversarial={"name": "noise", "epsilon": 0.1})
    assert cost.training(Classification(), backbone, dataset, noise, device) == before
    # The saved activations of a batch and their gradients once more, in float32.
    memory = [cost.training_memory(backbone, dataset, each, Resources(gpu="auto")) for each in (plain, noise)]
    assert memory[1] - memory[0] == pytest.approx(4 * 2 * 50 * 7.4767e6, rel=1e-3)


#: Images a second of docs/performance.md, in bf16, TF32 and float32: training with batches of 32, gradients of 256.
TRAINED = [("resnet18", 224, 8107, 5893, None), ("vgg16", 224, 2313, 1354, None), ("alexnet", 224, 12495, 9621, None)]
TRAINED += [("resnet18", 64, 19623, 17355, 7472)]
DIFFERENTIATED = [("resnet18", 224, 10200, 7400, 3250), ("resnet18", 64, 37900, 37700, 21000)]


def test_the_h100_is_stated_within_a_factor_of_what_was_measured_on_it():
    device, ratios = Device(gpu=True), {}
    for training, rows in ((True, TRAINED), (False, DIFFERENTIATED)):
        for name, side, *speeds in rows:
            network = network_of(BACKBONES.build(name), (side, side))
            for precision, speed in zip(("bf16", "tf32", "float32"), speeds, strict=True):
                step, once = (
                    device.step(network, precision, 32) / 32,
                    device.passes(network, precision, 0, 1, 256) / 256,
                )
                ratios[name, side, precision, training] = (step if training else once) * (speed or 1 / once)
    far = {what: ratio for what, ratio in ratios.items() if what[2] != "float32" and not 1 / 1.35 < ratio < 1.35}
    assert not far
    known = [
        ratios["resnet18", 64, "float32", True],
        *(ratios["resnet18", side, "float32", False] for side in (64, 224)),
    ]
    assert all(1 / 1.5 < ratio < 1.5 for ratio in known)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES.names)
def test_products_are_those_that_torch_counts(name):
    backbone = BACKBONES.build(name)
    # A network that reads rows takes a step for each; the products of a memory with itself are left out.
    side = 32 if backbone.reads_rows else 224
    with torch.device("meta"):
        model = backbone.build(10, size=side).eval()
        # Where gradients are recorded, since nothing is counted inside torch's fused attention.
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, side, side))
    network = network_of(backbone, (side, side))
    assert network.convolved + network.multiplied == pytest.approx(counter.get_total_flops() / 2, rel=0.1)


def test_a_network_that_only_runs_on_real_tensors_is_measured_on_one_image():
    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, images):
            images = self.conv(images)
            return self.head(images.mean((2, 3)) if float(images.detach().sum()) > -1e9 else images)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Odd(type(BACKBONES.build("smallcnn"))):
        head = "head"

        def network(self, channels):
            return Host()

    shape = {"weights": 3 * 4 * 9 + 4 + 40 + 10, "activations": 4 * 36 + 10, "layers": 2}
    assert network_of(Odd(), (8, 8)) == Network(convolved=108 * 36, multiplied=40, **shape)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), r"8 x 8 pixels: RuntimeError: .*7x10"),
        (
            lambda: nn.Sequential(nn.Identity(), nn.ReLU()),
            r"TypeError: backbone .*, got '1', which is a ReLU",
        ),
        (lambda: [nn.Linear(1, 1)], "TypeError: backbone .* must return a torch.nn.Module, got a list"),
        (lambda: nn.Linear(1, 1).nothing, rf"AttributeError: .* \({re.escape(__file__)}:\d+\)$"),
    ],
    ids=["size", "head", "list", "bug"],
)
def test_a_network_that_fails_is_a_request_that_was_wrong(made, words):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Failing(type(BACKBONES.build("smallcnn"))):
        head = "1"

        def network(self, channels):
            return made()

    with pytest.raises(ValueError, match=words):
        network_of(Failing(), (8, 8))


def test_images_of_unknown_size_are_taken_for_ones_that_the_network_takes():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Small(type(BACKBONES.build("smallcnn"))):
        max_size = 32

    files, unbounded = DATASETS.build("imagefolder", path="x"), BACKBONES.build("smallcnn")
    assert cost.network_at(Small(), files) == network_of(unbounded, (32, 32))
    assert cost.network_at(unbounded, files) == network_of(unbounded, (224, 224))
    assert cost.network_at(unbounded, DATASETS.build("digits")) == network_of(unbounded, (8, 8))


@pytest.mark.parametrize(
    ("name", "parameters", "counts"),
    [
        ("digits", {"classes": (0, 1, 2)}, (404, 135)),
        ("digits", {"classes": (0, 1, 2), "train_images": 100, "validation_images": 300}, (100, 135)),
        ("cifar10", {"validation_images": 5000}, (45_000, 10_000)),
        ("cifar10", {"split": "500/100/rest"}, (5_000, 1_000)),
        ("cifar10", {"split": "500/100/rest", "classes": (0, 1)}, (1_000, 200)),
        ("coco", {"classes": ("dog", "cat")}, (10_000, 5_000)),
    ],
)
def test_classes_and_splits_decide_how_many_images_a_plan_counts(name, parameters, counts):
    assert DATASETS.build(name, **parameters).counts == counts


def test_only_the_first_training_on_image_files_decodes_them(tiny):
    files = "{name: imagefolder, path: x, size: 16, train_images: 900, test_images: 100}"
    settings = [f"experiments.0.dataset={files}", "experiments.0.resources.cpu=2"]
    jobs = compile_plan(load(tiny, settings), set(), set()).jobs.values()
    assert [job.loading for job in jobs if job.loading] == [pytest.approx(1000 * (cost.DECODED + 256 * cost.PIXEL) / 2)]


def test_resources_of_a_plan_are_those_of_the_stage(tiny):
    sets = ["experiments.0.resources={cpu: 1, pretrain: {cpu: 4}, attack: {gpu: auto}}"]
    jobs = compile_plan(load(tiny, sets), set(), set()).jobs.values()
    wanted = Stages(pretrain=Resources(cpu=4), finetune=Resources(cpu=1), attack=Resources(cpu=1, gpu="auto"))
    for stage in STAGES:
        assert {job.resources for job in jobs if job.kind == stage} == {wanted.of(stage)}
