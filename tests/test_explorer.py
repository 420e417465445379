"""The claim explorer: what it can show is what the tables of the studies hold, and its resampling ends as they do."""

import json
import re
import shutil
from contextlib import contextmanager
from itertools import count

import numpy as np
import pytest
from browser import PHONE, ROOT, open_tab
from scipy import stats

from viptt_core.book.explorer import NOT_RUN, PARTS, list_changes, list_contrasts, list_predictions, part_html
from viptt_core.shown import arm_label, label, with_interval
from viptt_core.statistics import mean_interval, resample, two_level_comparison
from viptt_core.study.outcomes import read_table
from viptt_core.study.report import NO_VERDICT, open_results
from viptt_core.study.verdict import CONTRAST, read_verdicts

MOST_BYTES = 1.5e6
DONE = "document.querySelector('#viptt-resampling [role=status]').textContent"
NUMBERS = ["difference", "low", "high", "level"]
CONTRASTS = {path.parent.name: path for path in sorted((ROOT / "results").glob("*/contrasts.csv"))}


def committed(study):
    """Rows of the table of contrasts."""
    return read_table(CONTRASTS[study]).to_dict("records")


def resampled():
    return [one["resampling"] for one in list_contrasts(ROOT) if "resampling" in one]


def page():
    return "".join(part_html(part, ROOT) for part in PARTS)


# --- The page against the tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("study", CONTRASTS)
def test_every_planned_contrast_is_listed_once_with_the_numbers_of_the_table(study):
    listed = [one for one in list_contrasts(ROOT) if one["study"] == study]
    families = open_results(study, folder=ROOT).plan.families
    assert [one["arms"] for one in listed] == [arms for family in families for arms in family.contrasts]
    sentences = {one["sentence"] for one in read_verdicts(ROOT) if one["study"] == study}
    for row in committed(study):
        arms = [row[name] for name in CONTRAST if row[name]]
        (one,) = [one for one in listed if (list(one["arms"]), one["question"]) == (arms, row["question"])]
        shown = [one[name] for name in ("measure", "seeds", "n", "level", "difference", "verdict")]
        difference = with_interval(row["difference"], row["low"], row["high"], signed=True)
        wanted = [row[name] for name in ("measure", "seeds", "n", "level")]
        assert shown == [*wanted, difference, row["verdict"] or NO_VERDICT]
        if not np.isnan(row["low"]):
            assert [one["resampling"][name] for name in NUMBERS] == [row[name] for name in NUMBERS]
            assert one["sentence"] in sentences
    assert sum(one["verdict"] != NOT_RUN for one in listed) == len(committed(study))


def test_what_is_resampled_gives_the_interval_of_the_table():
    """From the digits in the page, by the functions that the tables are made with."""
    predictions = list_predictions(ROOT)
    for one in resampled():
        tail = (1 + one["level"]) / 2
        if "differences" in one:
            n, spread = len(one["differences"]), np.std(one["differences"])
            found = mean_interval(one["differences"], overlap=one["overlap"], level=one["level"])
            half = one["widen"] * spread / np.sqrt(n) * stats.norm.ppf(tail)
            assert found.high - found.estimate == pytest.approx(half)
        else:
            arms, tables = [predictions[one["study"]][name] for name in one["arms"]], []
            for arm, runs in zip(arms, one["runs"], strict=True):
                digits = [[int(digit) for digit in text] for text in [arm["labels"], *arm["runs"]]]
                tests = resample(digits[0], digits[1:], groups=arm["groups"], n_classes=one["k"])
                tables.append(tests[runs])
            settings = {"weights": one["weights"], "classes": one["classes"], "level": one["level"]}
            found = two_level_comparison("recall" if one["classes"] else "kappa", *tables, **settings)
            n = found.n
            widen = np.sqrt(n / (n - 1)) * stats.t.ppf(tail, n - 1) / stats.norm.ppf(tail) if n > 1 else 0
            assert one["widen"] == pytest.approx(widen)
        assert [found.estimate, found.low, found.high] == pytest.approx([one[name] for name in NUMBERS[:3]], abs=1e-5)


def test_every_combination_has_the_scores_of_its_arm():
    told = list_changes(ROOT)
    results = open_results("synthetic", folder=ROOT)
    assert [cell["arm"] for cell in told["cells"]] == results.plan.factorial_arms
    rows = {row["arm"]: row for row in read_table(ROOT / "results/synthetic/arms.csv").to_dict("records")}
    for cell in told["cells"]:
        row = rows.get(cell["arm"])
        assert cell["command"] == f'viptt study run synthetic "{cell["arm"]}"'
        assert cell["planned"] == results.plan.seeds_of(results.plan.arm(cell["arm"]))
        if row is None:
            assert "shown" not in cell
        else:
            assert [cell[name] for name in ("kappa", "kappa_low", "kappa_high", "seeds", "n")] == [
                row[name] for name in ("kappa", "kappa_low", "kappa_high", "seeds", "n")
            ]
            assert cell["scores"] == pytest.approx(results.scores(cell["arm"]).tolist())
            assert np.mean(cell["scores"]) == pytest.approx(row["kappa"])
            assert all((ROOT / file).is_file() for file in cell["files"])


def test_what_is_not_run_says_so(tmp_path):
    folder = tmp_path / "results" / "synthetic"
    folder.mkdir(parents=True)
    for name in ("study.json", "primary.npz"):
        shutil.copy(ROOT / "results" / "synthetic" / name, folder)
    arms = read_table(ROOT / "results/synthetic/arms.csv")
    arms[arms["arm"] == "image"].to_csv(folder / "arms.csv", index=False)
    run = ["shown" in cell for cell in list_changes(tmp_path)["cells"]]
    assert run == [True] + [False] * 7
    assert {one["verdict"] for one in list_contrasts(tmp_path)} == {NOT_RUN}
    told = part_html("changes", tmp_path)
    assert f"ImageNet + videos: {NOT_RUN}. The plan has 20 seeds." in told and "<button" not in told
    assert NOT_RUN in part_html("changes", tmp_path / "none")


def test_the_page_is_small_and_asks_no_other_host():
    assert len(page()) < MOST_BYTES
    assert not re.search(r"https?://|@import|url\(", page() + (ROOT / "book/_static/explorer.css").read_text("utf-8"))


# --- In a browser -------------------------------------------------------------------------------------------------


@pytest.fixture
def show(browser, tmp_path):
    """The parts of the page, without the book around them."""

    @contextmanager
    def showing(**settings):
        files = [(ROOT / "book" / "_static" / f"explorer.{kind}").read_text("utf-8") for kind in ("css", "js")]
        text = (
            f'<meta name="viewport" content="width=device-width"><style>{files[0]}</style><script>{files[1]}</script>'
        )
        (tmp_path / "explorer.html").write_text(f"<!doctype html>{text}<main><article>{page()}", "utf-8")
        with open_tab(browser, tmp_path.as_uri() + "/", **settings) as tab:
            tab.open("explorer.html")
            yield tab
            assert tab.take_faults() == []

    return showing


@pytest.mark.slow
def test_the_toggles_show_every_combination(show):
    rows = {row["arm"]: row for row in read_table(ROOT / "results/synthetic/arms.csv").to_dict("records")}
    contrasts, arms = committed("synthetic"), open_results("synthetic", folder=ROOT).plan.factorial_arms
    with show() as tab:
        part = tab.page.locator("#viptt-changes")
        boxes = part.get_by_role("checkbox").all()
        assert 2 ** len(boxes) == len(arms)
        for place, name in enumerate(arms):
            for bit, box in enumerate(boxes):
                box.set_checked(bool(place >> bit & 1))
            (cell,) = [one for one in part.locator(".viptt-cell").all() if one.is_visible()]
            said, told = part.get_by_role("status").inner_text(), cell.inner_text()
            (chosen,) = part.locator("[data-chosen]").all()
            assert said.startswith(f"{arm_label(name)}: ") and arm_label(name) in chosen.inner_text()
            assert f'viptt study run synthetic "{name}"' in told
            if row := rows.get(name):
                assert with_interval(row["kappa"], row["kappa_low"], row["kappa_high"]) in said
                kappas = [float(text) for text in cell.locator(".viptt-scores").inner_text().split(", ")]
                assert len(kappas) == row["runs"] == chosen.locator("i").count()
                assert np.mean(kappas) == pytest.approx(row["kappa"], abs=1e-3)
            else:
                assert NOT_RUN in said
            for one in contrasts:
                if one["arm"] == name and {one["baseline"], *filter(None, (one["arm2"], one["baseline2"]))} <= set(
                    arms
                ):
                    ends = with_interval(one["difference"], np.nan, np.nan, signed=True)
                    assert one["question"] in told and ends in told


@pytest.mark.slow
def test_the_list_is_filtered_by_words_study_and_verdict(show):
    listed = list_contrasts(ROOT)
    with show() as tab:
        part = tab.page.locator("#viptt-contrasts")
        rows, status = part.locator("tbody tr"), part.get_by_role("status")

        def visible():
            return [k for k, row in enumerate(rows.all()) if row.is_visible()]

        assert visible() == list(range(len(listed)))
        for row, one in zip(rows.all_inner_texts(), listed, strict=True):
            wanted = [one[name] for name in ("study", "name", "question", "verdict")]
            if "difference" in one:
                shown = f"{label(one['measure'])} {one['difference']}"
                wanted += [shown, f"{one['seeds']} seed", f"{one['n']:,} cases"]
            assert [text for text in wanted if text not in row] == []
        for choice, key in (("Study", "study"), ("Verdict", "verdict")):
            for value in dict.fromkeys(one[key] for one in listed):
                part.get_by_label(choice).select_option(value)
                wanted = [k for k, one in enumerate(listed) if one[key] == value]
                assert visible() == wanted
                assert status.inner_text().startswith(f"{len(wanted)} of " * (len(wanted) < len(listed)))
            part.get_by_label(choice).select_option("")
        part.get_by_label("Text").fill("IMAGENET labels?")
        words = [k for k, one in enumerate(listed) if "labels?" in (one["name"] + one["question"]).lower()]
        assert visible() == [k for k in words if "imagenet" in listed[k]["name"].lower()]
        part.get_by_label("Text").fill("no such words")
        assert visible() == [] and status.inner_text() == f"0 of {len(listed)} contrasts"


@pytest.mark.slow
def test_resampling_ends_within_a_hundredth_of_the_table(show):
    """By keyboard: from the row of a contrast, and from the list of the panel."""
    listed = [(number, one) for number, one in enumerate(list_contrasts(ROOT)) if "resampling" in one]
    kinds = {}  # one of each kind
    for number, one in listed:
        kinds.setdefault((one["measure"], "runs" in one["resampling"]), number)
    with show() as tab:
        panel = tab.page.locator("#viptt-resampling")
        for turn, (number, one) in enumerate((number, dict(listed)[number]) for number in kinds.values()):
            if turn % 2:
                panel.get_by_label("Contrast").select_option(str(number))
                panel.get_by_role("button", name="Resample").focus()
            else:
                tab.page.locator(f"#viptt-contrasts button[data-contrast='{number}']").focus()
            tab.page.keyboard.press("Enter")
            tab.page.wait_for_function(DONE, timeout=120_000)
            found = {name: float(panel.get_attribute(f"data-{name}")) for name in ("estimate", "low", "high")}
            wanted = one["resampling"]
            assert found["estimate"] == pytest.approx(wanted["difference"], abs=1e-5)
            assert [found["low"], found["high"]] == pytest.approx([wanted["low"], wanted["high"]], abs=0.01)
            assert panel.get_by_role("status").inner_text().endswith(f"In the table: {one['difference']}.")
            heights = panel.locator(".viptt-bars i").evaluate_all("all => all.map(bar => bar.offsetHeight)")
            assert max(heights) > 50 and tab.page.evaluate("document.activeElement.className") == "viptt-start"


@pytest.mark.slow
def test_everything_is_reached_by_keyboard(show):
    with show(width=PHONE) as tab:
        tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("Space")
        assert tab.page.locator("#viptt-changes [role=status]").inner_text().startswith("ImageNet + videos: ")
        names = set()
        for _ in count():
            tab.page.keyboard.press("Tab")
            told = tab.page.evaluate("document.activeElement.closest('.viptt-explorer')?.id")
            if told is None:
                break
            names.add((told, tab.page.evaluate("document.activeElement.localName")))
        wanted = {("viptt-changes", "input"), ("viptt-contrasts", "input"), ("viptt-contrasts", "select")}
        wanted |= {("viptt-contrasts", "button"), ("viptt-resampling", "select"), ("viptt-resampling", "button")}
        assert names >= wanted


def test_the_data_cannot_end_their_script():
    for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page(), flags=re.S):
        assert json.loads(text)
