"""What a job costs, what a plan adds up to, and what fits into a budget."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT, tiny
from stored import publish

from simclic import Finetune, InputError, Linear, Run, Table, load
from simclic.__main__ import main
from simclic.cli.plan import parse_budget as hours
from simclic.data import FACTS
from simclic.experiment import Job, JobState, Suite
from simclic.files import write_json
from simclic.report import budget
from simclic.report.cell_keys import job_key
from simclic.report.claims import Claim
from simclic.report.results import Results
from simclic.report.time_spent import summarise_time_spent
from simclic.schedule import cost, plan_cost, task_arrays
from simclic.schedule.cost import Prices, Target, work_amounts
from simclic.schedule.cost.rates import Rates
from simclic.schedule.plan import plan
from simclic.schedule.profile import parse_profile, price_target
from simclic.schedule.state import State
from simclic.store.run_folder import RunFolder

CPU, GPU = Target(jobs_at_once=2), Target("gpu", "a100", jobs_at_once=8)
PAPER = [ROOT / f"benchmarks/{name}.py" for name in ("table2", "table4", "table5", "table6", "figure4", "figure7")]


BOTH = (Linear(), Finetune())


def suite(*runs, protocols=BOTH):
    return Suite("", "", (Table(paper="table2", caption="", runs=runs, protocols=protocols),), "benchmarks/x.py")


def done(runs, run, seconds=100.0, device="cpu", epochs=None):
    """A finished encoder that took so long."""
    folder = RunFolder(runs, run).create_folder("d1").path
    write_json(folder / "pretrain.json", {"seconds": seconds, "device": device, "last": {}})
    return folder


def test_amounts_are_the_papers():
    run = Run()
    steps = {"start": 1, "train.step": 390_000, "train.image": 390_000 * 128, "epoch": 1000}
    assert work_amounts.encoder_work(run) == steps | {"image": 11 * (8192 + 2048)}  # the error of kNN in its log
    assert work_amounts.encoder_work(Run(epochs=0, perturbation="none"))["image"] == 50_000
    tuned = work_amounts.result_amounts(run, Finetune())
    assert (tuned["tune.step"], tuned["tune.image"], tuned["member"]) == (57 * 5000, 57 * 5000 * 128, 57)
    assert tuned["image"] == 56 * 10_000 + 10_000
    assert work_amounts.result_amounts(run, Linear()) == {"converged.value": 46, "converged.cell": 46 * 50_000 * 10}
    assert work_amounts.split_sizes(Run(split="paper")) == (48_000, 12_000, 12_000)
    assert work_amounts.count_fit_images(Run(split="paper", dataset="dtd")) == 1880
    assert work_amounts.feature_bytes(run) == 60_000 * 2048 * 4  # its features stay
    assert (
        work_amounts.temporary_bytes(Run(perturbation="history")) - work_amounts.temporary_bytes(run) == 3 * 4 * 50_000 * 2048
    )  # the table of Eq. 1


def test_a_method_is_priced_by_its_passes(tmp_path):
    one, two = Run(), Run(method="simsiam")
    assert work_amounts.encoder_work(two) == work_amounts.encoder_work(one) | {"train.image": 2 * 390_000 * 128}
    assert work_amounts.temporary_bytes(two) == work_amounts.temporary_bytes(
        one
    )  # the same heads, and nothing is kept of an image
    assert 1.7 < cost.guess_seconds(two, None) / cost.guess_seconds(one, None) <= 2
    prices = Prices(tmp_path, GPU)
    assert 1.7 < prices.price_job(two, None).seconds / prices.price_job(one, None).seconds <= 2  # a step has a price of its own
    done(tmp_path, tiny(), 1000.0)
    known = Prices(tmp_path, CPU)
    known.learn_from_runs([cost.prices.kind_of(tiny(), None), cost.prices.kind_of(tiny(method="simsiam"), None)])
    assert known.price_job(tiny(seed=1), None).source == "as one finished"
    assert known.price_job(tiny(method="simsiam"), None).source.startswith("guessed")  # another method's time says nothing of it


def test_the_best_source_comes_first(tmp_path):
    run, other = tiny(), tiny(seed=1)
    guess = Prices(tmp_path, CPU).price_job(run, None)
    assert guess.source.startswith("guessed: test_resnet on cpu, ResNet-50 at 1.5 images/s")
    rate = {"backbone": "test_resnet", "image_size": 16, "precision": "float32", "width": 96, "seconds": {"train.step": 1.0}}
    cost.write_rates(tmp_path, CPU, [rate], {"device": "cpu"})
    measured = Prices(tmp_path, CPU)
    steps = work_amounts.encoder_work(run)["train.step"]
    assert measured.price_job(run, None).source == f"calibrated, in part {guess.source}"  # neither image nor epoch was measured
    more = steps * (1 - measured.rates.guess_rates(tiny())["train.step"])
    assert measured.price_job(run, None).seconds == pytest.approx(guess.seconds + more)
    assert measured.price_job(tiny(image_size=32), None).source.startswith("calibrated at 16 pixels, in part ")
    done(tmp_path, other, 1234.0)
    measured.learn_from_runs([cost.prices.kind_of(run, None)])
    start = measured.rates.guess_rates(tiny())["start"]
    assert measured.price_job(run, None) == (pytest.approx(1234 + start), "as one finished", start, 1)
    assert measured.price_job(tiny(epochs=4), None).seconds == pytest.approx(2 * 1234 + start, rel=2e-3)  # but kNN once


def test_runs_on_another_kind_of_device_tell_nothing(tmp_path):
    done(tmp_path, tiny(), 50.0, "NVIDIA A100-SXM4-80GB")
    kinds = [cost.prices.kind_of(tiny(seed=1), None)]
    wheres = ((CPU, False), (GPU, True), (Target("g", "h100"), False), (Target("g", "a10"), False), (Target("g", "gpu"), True))
    for where, learns in wheres:
        prices = Prices(tmp_path, where)
        prices.learn_from_runs(kinds)
        assert bool(prices.learned) == learns, where


def test_a_plan_of_the_paper_adds_up(tmp_path):
    made = plan([load(path) for path in PAPER], tmp_path, tmp_path)
    told = plan_cost.price_plan(made, tmp_path, tmp_path, GPU)
    assert set(told.prices) == set(made.jobs)
    answer = plan_cost.as_json(made, told)
    assert sum(line["hours"] for line in answer["lines"]) == pytest.approx(answer["hours"])
    assert answer["totals"][-1]["hours"] == pytest.approx(answer["hours"])
    assert sum(answer["sources"].values()) == pytest.approx(answer["hours"])
    assert told.device_hours(told.seconds) / GPU.jobs_at_once <= told.wall_seconds / 3600 <= told.device_hours(told.seconds)
    longest = max(
        told.prices[job.name].seconds + told.prices[job.job.encoder.name].seconds for job in made.jobs.values() if job.protocol
    )
    assert told.wall_seconds >= longest  # a result waits for its encoder
    assert told.disk_during > told.disk_after > sum(cost.job_bytes(job.run, job.protocol) for job in made.jobs.values())
    jobs = {job["name"]: job for job in answer["jobs"]}
    assert all(job["needs"] in jobs for job in jobs.values() if job["needs"])
    shared = jobs[Job(Run(), Linear()).name]
    assert shared["exhibits"] == ["table2", "table4", "table5", "table6", "figure7"]


def test_what_is_done_costs_nothing_and_tells_the_rest(tmp_path):
    runs = [tiny(seed=s) for s in range(3)]
    for run in runs[:2]:
        done(tmp_path, run, 60.0)
        publish(tmp_path, run, Linear())
    made = plan([suite(*runs, protocols=(Linear(),))], tmp_path, tmp_path)
    told = plan_cost.price_plan(made, tmp_path, tmp_path, CPU)
    assert set(told.prices) == {Job(runs[2], None).name, Job(runs[2], Linear()).name}
    assert told.prices[Job(runs[2], None).name].source == "as 2 finished"
    assert 60 <= told.prices[Job(runs[2], None).name].seconds < 62
    assert told.prices[Job(runs[2], Linear()).name].seconds == pytest.approx(0.5, abs=0.3)  # as publish says, and the features


def test_tables_5_and_6_are_done_where_table_4_is(tmp_path):
    (table,) = load(ROOT / "benchmarks/table4.py").exhibits
    for run in table.runs:
        done(tmp_path, run)
        publish(tmp_path, run, Linear())
    made = plan([load(ROOT / f"benchmarks/table{n}.py") for n in (5, 6)], tmp_path, tmp_path)
    states = {job.name: job.state for job in made.jobs.values()}
    assert states[Job(Run(), None).name] == states[Job(Run(), Linear()).name] == "done"
    assert sorted(states.values()) == ["done", "done", "missing", "missing", "missing", "missing"]
    assert made.sum_stages()[-1].done == 2


def test_the_wall_time_is_that_of_the_longest_chain_or_of_the_sum():
    runs = [tiny(seed=s) for s in range(4)]
    left = [State(Job(run, p), JobState.MISSING) for run in runs for p in (None, Linear())]
    for atonce, seconds in ((1, 4 * 15), (2, 2 * 15), (4, 15), (100, 15)):
        told = plan_cost.PlanCost(
            Target(jobs_at_once=atonce), {job.name: cost.Price(5.0 if job.protocol else 10.0, "") for job in left}
        )
        assert plan_cost.estimate_wall_seconds(left, told) == seconds, atonce


def claim(name, *runs):
    """A claim that needs the linear errors of these Runs in Table 2."""
    needed = {job_key(exhibit, job) for exhibit in suite(*runs, protocols=(Linear(),)).exhibits for job in exhibit.jobs}
    return Claim(name, "4.2", ("table2",), "", lambda cells, printed: None, lambda places, printed: needed <= {*places})


def proposed(runs, share, claims, place):
    """What fits into a share of the whole bill of a Table 2 of these Runs, and the whole bill in hours."""
    exhibits = [suite(*runs, protocols=(Linear(),))]
    made = plan(exhibits, place, place)
    told = plan_cost.price_plan(made, place, place, CPU)
    whole = told.device_hours(told.seconds)
    return budget.propose_budget(whole * share, exhibits, made, told, claims), whole


def test_a_budget_goes_to_what_decides_most_for_an_hour_and_drops_nothing_silently(tmp_path):
    cheap, dear = tiny(), tiny(dataset="cifar10", epochs=500)
    claims = [claim("a", cheap), claim("b", dear)]
    all_in, whole = proposed((cheap, dear), 1.01, claims, tmp_path)
    assert [(str(s.parts[0]), set(s.claims)) for s in all_in.steps] == [
        ("table2, Digits, linear evaluation", {"a"}), ("table2, CIFAR10, linear evaluation", {"b"}),
    ]  # fmt: skip
    assert all_in.hours == pytest.approx(whole)
    assert (all_in.out, all_in.open) == ([], frozenset())
    some, _ = proposed((cheap, dear), 0.5, claims, tmp_path)
    assert [set(s.claims) for s in some.steps] == [{"a"}]
    assert [str(part) for part, _ in some.out] == ["table2, CIFAR10, linear evaluation"]
    assert some.open == {"b"}
    assert sum(h for _, h in some.out) + some.hours == pytest.approx(whole)


def test_claims_that_need_two_parts_get_both_or_neither(tmp_path):
    runs = (tiny(), tiny(dataset="cifar10"))
    found, _ = proposed(runs, 2, [claim("order", *runs)], tmp_path)
    assert [len(s.parts) for s in found.steps] == [2]
    assert found.steps[0].claims == {"order"}
    found, _ = proposed(runs, 0.9, [claim("order", *runs)], tmp_path)
    assert found.open == {"order"}


def test_what_is_done_lets_claims_be_judged_at_no_cost(tmp_path):
    runs = (tiny(), tiny(dataset="cifar10"))
    done(tmp_path, runs[0])
    publish(tmp_path, runs[0], Linear())
    found, _ = proposed(runs, 2, [claim("have", runs[0]), claim("order", *runs)], tmp_path)
    assert [(len(s.parts), set(s.claims)) for s in found.steps] == [(1, {"order"})]
    assert found.open == frozenset()


def test_the_command_line_prices_budgets_and_explains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    files = [str(p.relative_to(ROOT)) for p in PAPER]
    where = ["--runs", str(tmp_path), "--data", str(tmp_path)]
    assert main(["plan", *files, *where, "--on", "slurm/gpu.toml"]) == 0
    out = capsys.readouterr().out
    assert "GPU-h on gpu (gpu), " in out
    assert "guessed: resnet50 on gpu, ResNet-50 at 600 images/s" in out
    assert main(["plan", *files, *where, "--on", "slurm/gpu.toml", "--within", "200 GPU-h", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert 0 < answer["hours"] <= 200
    assert sum(bool(step["claims"]) for step in answer["steps"]) >= 4
    assert "larger-batches-help" in answer["open"]  # Figure 7 alone is more
    assert any(part["part"].startswith("figure7") for part in answer["out"])
    assert main(["plan", *files, *where, "--why", "table4 none"]) == 0
    assert "Table 4 · SimCLIC (noise) · CIFAR10 · predictor=none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--within", "much"], "--within 'much' is not a budget; write it as in --within '200 core-h'"),
        (["--within", "0 core-h"], "is not a budget"),
        (["--within", "-3"], "is not a budget"),
        (["--within", "200 GPU-h"], "this target counts core-h"),
        (["--why", "table9"], "nothing is called 'table9'"),
        (["--on", "slurm/gpuu.toml"], "did you mean slurm/gpu.toml?"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(ROOT)
    try:
        code = main(["plan", "benchmarks/table4.py", "--runs", str(tmp_path), "--data", str(tmp_path), *words])
    except SystemExit as e:  # argparse
        code = e.code
    err = capsys.readouterr().err
    assert code == 2
    if words[-1] != "-3":
        assert told in err
        assert err.count("\n") == 1


def test_budgets_in_words():
    assert (hours("200 GPU-h", "GPU-h"), hours("1.5", "core-h"), hours(" 3 h ", "GPU-h")) == (200, 1.5, 3)
    with pytest.raises(InputError, match="counts core-h"):
        hours("3 gpuh", "core-h")


def test_a_damaged_calibration_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    path = cost.write_rates(tmp_path, cost.this_machine(), [], {"device": "cpu"})
    path.write_text(path.read_text()[:-9])
    assert main(["plan", "benchmarks/table4.py", "--runs", str(tmp_path), "--data", str(tmp_path)]) == 2
    assert f"{path}: is not a whole JSON file" in capsys.readouterr().err
    cost.write_rates(tmp_path, cost.this_machine(), [], {"device": "cpu"})  # a new calibration mends it
    assert main(["plan", "benchmarks/table4.py", "--runs", str(tmp_path), "--data", str(tmp_path)]) == 0


def test_profiles_say_what_they_ask_for():
    pytest.importorskip("submitit", reason="no submitit here, which knows the keys of a profile")
    one = price_target(
        parse_profile("p", {"gpus_per_node": 2, "slurm_constraint": "a100", "slurm_array_parallelism": 4, "how": {"per_gpu": 3}})
    )
    assert (one.kind, one.jobs_at_once, one.processes_per_device, one.unit) == ("a100", 24, 3, "GPU-h")
    for words in ({"slurm_gres": "gpu:h100:1"}, {"pretrain": {"slurm_additional_parameters": {"gpus": "h100:1"}}},
                  {"slurm_gpus_per_node": 1, "slurm_additional_parameters": {"constraint": "h100"}}):  # fmt: skip
        assert price_target(parse_profile("p", words)).kind == "h100"
    cpu = price_target(parse_profile("p", {"cpus_per_task": 8, "slurm_array_parallelism": 4}))
    assert (cpu.kind, cpu.jobs_at_once, cpu.unit) == ("cpu", 32, "core-h")


def test_ranks_shorten_a_pretraining_and_cost_devices(tmp_path):
    run, protocol = Run(dataset="cifar10"), Linear()
    one, four = (cost.Prices(tmp_path, cost.Target("p", "a100", ranks=n)) for n in (1, 4))
    alone, together = (prices.price_job(run, None) for prices in (one, four))
    assert together.seconds < alone.seconds < together.device_seconds
    assert "4 ranks guessed 3.2 times as fast" in together.source
    assert four.price_job(run, protocol) == one.price_job(run, protocol)
    # What four ranks took is what four ranks will take, however good the guess.
    for prices in (one, four):
        prices.learn_from(run, None, {"seconds": 100.0, "device": "NVIDIA A100", "ranks": [1, 4]})
    assert four.price_job(run, None).seconds == pytest.approx(100.0 + together.besides)
    assert one.price_job(run, None).seconds > 300


def test_parts_of_a_grid_shorten_it_and_cost_the_same(tmp_path):
    """Of 24 settings, and a final member that one device trains while the others are idle."""
    run, grid = Run(dataset="cifar10"), Finetune(lr_count=6, decay_count=3)
    assert len(grid.settings) == 24
    one, five, many = (cost.Prices(tmp_path, cost.Target("p", "a100", grid_devices=n)) for n in (1, 5, 1000))
    alone, parts, single = (prices.price_job(run, grid) for prices in (one, five, many))
    assert parts.seconds / alone.seconds == pytest.approx(6 / 25, rel=0.05)  # 5 settings and the final one
    assert single.seconds / alone.seconds == pytest.approx(2 / 25, rel=0.05)
    assert parts.device_seconds == pytest.approx(alone.device_seconds)
    assert "the grid in 5 parts" in parts.source
    for prices in (one, five):  # what is stored is the sum over processes
        prices.learn_from(run, grid, {"seconds": 100.0, "device": "NVIDIA A100"})
        assert prices.price_job(run, grid).device_seconds == pytest.approx(100.0)
    assert five.price_job(run, grid).seconds == pytest.approx(100.0 * parts.seconds / alone.seconds)
    assert five.price_job(run, Linear()) == one.price_job(run, Linear())


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        ({"gpus_per_node": 4, "how": {"ranks": 4}}, 4),
        ({"gpus_per_node": 8, "how": {"ranks": 4}}, 4),
        ({"gpus_per_node": 4, "finetune": {"gpus_per_node": 2}, "how": {"ranks": 4}}, 2),
        ({"gpus_per_node": 1, "pretrain": {"nodes": 2}, "how": {"ranks": 2}}, 1),
        ({"gpus_per_node": 4}, 1),
        ({"cluster": "local", "how": {"ranks": 3}}, 3),
    ],
)
def test_a_profile_says_how_many_devices_a_grid_has(words, devices):
    pytest.importorskip("submitit", reason="no submitit here, which knows the keys of a profile")
    assert price_target(parse_profile("p", words)).grid_devices == devices


def test_tasks_are_filled_with_the_work_of_a_grid_whatever_shares_it(tmp_path):
    pytest.importorskip("submitit", reason="no submitit here, which knows the keys of a profile")
    job = Job(Run(dataset="cifar10"), Finetune())
    one, four = (task_arrays.Prices(tmp_path, parse_profile("p", {"gpus_per_node": 4, "how": {"ranks": n}})) for n in (1, 4))
    assert four.price_minutes(job) == pytest.approx(one.price_minutes(job))
    assert four.price_minutes(job.encoder) < one.price_minutes(job.encoder) / 2  # it is on all of them


def test_what_ranks_took_is_beside_what_they_would_take(tmp_path):
    """The page of the report: planned for as many ranks as the encoder had."""
    run, planned = tiny(), []
    publish(tmp_path, run, Linear())
    for ranks in ({}, {"ranks": [1]}, {"ranks": [1, 2]}):
        write_json(done(tmp_path, run) / "pretrain.json", {"seconds": 100.0, "device": "cpu", "last": {}, **ranks})
        line, *_ = summarise_time_spent([suite(run)], Results(tmp_path))
        assert (line.stage, line.took) == ("Pre-training", 100.0)
        planned.append(line.planned)
    assert planned[0] == planned[1] == pytest.approx(1.8 * planned[2])


def test_ranks_are_priced_by_what_was_measured(tmp_path):
    run, target = Run(dataset="cifar10"), cost.Target("p", "a100")
    kind = {"backbone": run.network, "image_size": run.image_size, "precision": run.precision}
    seconds = {"train.step": 0.01, "train.image": 0.001, "epoch": 0.1, "image": 0.001, "start": 0.0}
    cost.write_rates(tmp_path, target, [{**kind, "seconds": seconds, "speedups": {"2": 1.5}}], {"device": "NVIDIA A100"})
    one, two, four = (cost.Prices(tmp_path, replace(target, ranks=n)).price_job(run, None) for n in (1, 2, 4))
    assert one.source == "calibrated"
    assert (two.source, one.seconds / two.seconds) == ("calibrated; 2 ranks measured 1.5 times as fast", pytest.approx(1.5))
    assert four.source == "calibrated; 4 ranks guessed 2.7 times as fast, from 2 measured"
    # Measuring other kinds of work again forgets nothing.
    cost.write_rates(tmp_path, target, [{**kind, "seconds": {"image": 0.002}}], {"device": "NVIDIA A100"})
    assert cost.Prices(tmp_path, replace(target, ranks=2)).price_job(run, None).source == two.source


def test_prices_take_neither_torch_nor_pandas(tmp_path):
    script = """if True:
        import sys
        from simclic.__main__ import main
        main(sys.argv[1:])
        print({"torch", "pandas", "numpy", "matplotlib", "sklearn"} & set(sys.modules), file=sys.stderr)
    """
    words = ["plan", *map(str, PAPER), "--runs", str(tmp_path), "--data", str(tmp_path)]
    ran = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "set()"


def test_what_is_priced_is_finite_for_every_exhibit(tmp_path):
    prices = Prices(tmp_path, CPU)
    for path in sorted(ROOT.glob("benchmarks/*.py")):
        for job in (job for job in load(path).jobs if job.run.dataset in FACTS):  # a folder that is not here has no price
            for protocol in (None, job.protocol):
                assert 0 <= prices.price_job(job.run, protocol).seconds < math.inf


def test_a_folder_of_images_that_is_elsewhere_has_no_price_and_breaks_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tiny(dataset="./elsewhere")
    made = plan([suite(run, tiny())], tmp_path / "runs", tmp_path)
    told = plan_cost.price_plan(made, tmp_path / "runs", tmp_path, CPU)
    assert len(told.unpriced_jobs) == 3
    assert {name.split("/")[0] for name in told.prices} == {tiny().name}
    assert plan_cost.as_json(made, told)["unknown"] == told.unpriced_jobs
    (tmp_path / "mine.py").write_text(
        """from simclic import Table, grid
TABLE = Table(paper="table2", caption="", runs=grid(dataset="./elsewhere", epochs=2))"""
    )
    assert main(["plan", "mine.py"]) == 0
    assert "no price for 2 jobs: their images are not here" in capsys.readouterr().out


def test_decoded_data_that_are_there_are_not_counted_again(tmp_path):
    made = plan([suite(Run(), Run(dataset="dtd"))], tmp_path, tmp_path)
    first = plan_cost.price_plan(made, tmp_path, tmp_path, CPU).disk_after
    (tmp_path / "prepared").mkdir()
    for name, size in (("cifar10-32-0123456789abcdef", 60_000 * 3 * 32**2), ("dtd-224-0123456789abcdef", 5640 * 3 * 224**2)):
        (tmp_path / f"prepared/{name}.npy").touch()
        then = plan_cost.price_plan(made, tmp_path, tmp_path, CPU).disk_after
        assert first - then == pytest.approx(size)
        first = then


def test_images_that_are_decoded_as_needed_take_no_disk_and_time_that_no_price_counts(tmp_path):
    runs = Run(dataset="dtd"), Run(dataset="cifar10"), Run(dataset="food", method="simsiam", views_from="whole")
    made, squares, others = plan([suite(*runs)], tmp_path, tmp_path), 224**2, Target(decode="as-needed")
    once, needed = (plan_cost.price_plan(made, tmp_path, tmp_path, target) for target in (CPU, others))
    food = 101_000 * 3 * (squares + 4 / 3 * 256**2)  # both as a pre-training and as evaluations see them
    assert once.disk_after - needed.disk_after == pytest.approx(5640 * 3 * squares + food)  # CIFAR lies in no files of its own
    assert {name: price.seconds for name, price in needed.prices.items()} == {n: p.seconds for n, p in once.prices.items()}
    without = {name: price.source.endswith(", without decoding images") for name, price in needed.prices.items()}
    decoding = {Job(run, protocol).name for run in (runs[0], runs[2]) for protocol in (None, Finetune())}
    assert {name for name, said in without.items() if said} == decoding < needed.prices.keys()
    assert not any("without" in source for source in once.seconds_by_source)
    features = [cost.Prices(tmp_path, others).price_features(run, Linear()).source for run in runs]
    assert ["without" in source for source in features] == [True, False, True]


def test_what_is_watched_is_priced_and_decoded(tmp_path):
    run = Run(dataset="sun397")
    made = plan([suite(run)], tmp_path, tmp_path)
    own, watched = (plan_cost.price_plan(made, tmp_path, tmp_path, Target(watch_on=name)) for name in ("", "flowers"))
    assert watched.disk_after - own.disk_after == pytest.approx((1020 + 1020 + 6149) * 3 * 224**2)
    amounts = [work_amounts.encoder_work(run, name)["image"] for name in ("", "flowers")]
    assert amounts == [11 * (8192 + 2048), 11 * (1020 + 1020)]
    name = Job(run).name
    rate = Rates(CPU, []).guess_rates(run)["image"]
    assert own.prices[name].seconds - watched.prices[name].seconds == pytest.approx(rate * (amounts[0] - amounts[1]))
    assert {job: own.prices[job] for job in own.prices if job != name} == {
        job: watched.prices[job] for job in watched.prices if job != name
    }


def test_features_and_decoded_images_are_counted_once(tmp_path):
    both = (Linear(), Linear(solver="as-published"))
    one, two = (plan([suite(Run(dataset="sun397"), protocols=ps)], tmp_path, tmp_path) for ps in (both[:1], both))
    bills = [plan_cost.price_plan(made, tmp_path, tmp_path, CPU) for made in (one, two)]
    more = cost.job_bytes(Run(dataset="sun397"), both[1])
    assert bills[1].disk_after - bills[0].disk_after == pytest.approx(more)  # no second file of features
    assert bills[0].disk_after > 39_700 * 3 * 224**2 + cost.feature_bytes(Run(dataset="sun397"))
    assert bills[0].disk_after < 45_000 * 3 * 224**2 + cost.feature_bytes(
        Run(dataset="sun397")
    )  # of 108,754 images 39,700 are used
    seconds = [told.prices[Job(Run(dataset="sun397"), both[0]).name] for told in bills]
    assert seconds[0] == seconds[1]
    assert two.jobs[Job(Run(dataset="sun397"), both[1]).name].is_open
    assert bills[1].prices[Job(Run(dataset="sun397"), both[1]).name].besides == 0


def test_processes_that_share_a_gpu_slow_each_other_down(tmp_path):
    made = plan([suite(Run())], tmp_path, tmp_path)
    hours = [
        plan_cost.price_plan(made, tmp_path, tmp_path, Target("g", "h100", jobs_at_once=n, processes_per_device=n))
        for n in (1, 4)
    ]
    assert hours[1].device_hours(hours[1].seconds) == pytest.approx(hours[0].device_hours(hours[0].seconds), rel=0.01)
    scaled = Prices(tmp_path, Target("g", "h100", guessed_speed=4600)).price_job(Run(), None).seconds  # the profile's own guess
    assert scaled == pytest.approx(Prices(tmp_path, Target("g", "h100")).price_job(Run(), None).seconds / 2, rel=0.01)


def test_here_one_process_does_all_of_a_run():
    runs = [tiny(seed=s) for s in range(2)]
    left = [State(Job(run, p), JobState.MISSING) for run in runs for p in (None, Linear(), Finetune())]
    for together, seconds in ((True, 30), (False, 20)):
        told = plan_cost.PlanCost(
            Target(jobs_at_once=4, one_process_per_run=together), {job.name: cost.Price(10.0, "") for job in left}
        )
        assert plan_cost.estimate_wall_seconds(left, told) == seconds


@pytest.mark.parametrize(
    "values",
    [
        {"run.json": {"run": [1]}},
        {"run.json": {"run": {"dataset": "./gone", "backbone": "test_resnet", "image_size": 16}}},
        {"run.json": {"run": {"backbone": "test_resnet", "image_size": 16, "colour": 1}}},
        {"run.json": {"run": None}, "pretrain.json": {"seconds": "abc", "device": "cpu"}},
        {"linear-0123456789.json": {"stage": "linear"}},
        {"linear-0123456789.json": {"stage": "linear", "protocol": {"colour": 1}, "seconds": 1.0}},
        {"linear-0123456789.json": {"stage": "dance", "protocol": {}}},
    ],
)
def test_foreign_files_among_runs_teach_nothing_and_break_nothing(tmp_path, values):
    folder = RunFolder(tmp_path, tiny(seed=1)).create_folder("d1").path
    for name, content in values.items():
        content = {"run": tiny(seed=1).values} if content == {"run": None} else content
        write_json(folder / name, content)
    made = plan([suite(tiny())], tmp_path, tmp_path)
    told = plan_cost.price_plan(made, tmp_path, tmp_path, CPU)
    assert all(source.startswith("guessed") for source in told.seconds_by_source)


def test_a_broken_part_is_left_out_by_name(tmp_path):
    publish(tmp_path, tiny(), Linear()).write_text("{")
    found, _ = proposed([tiny()], 1, [], tmp_path)
    assert [(str(part), math.isnan(hours)) for part, hours in found.out] == [("table2, Digits, linear evaluation", True)]


def test_kinds_of_gpus_are_told_apart_by_whole_words():
    names = {"NVIDIA A100-SXM4-80GB": "a100", "NVIDIA A10": "a10", "Tesla T4": "t4", "NVIDIA L40S": "l40"}
    names |= {"NVIDIA T400 4GB": "gpu", "gpu:h100:1": "h100", "": "gpu"}
    assert {name: cost.gpu_kind(name) for name in names} == names
