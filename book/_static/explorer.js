/* The page "Claim explorer". What it shows stands in the page already; here it is toggled and resampled. */
(function () {
  "use strict";
  const RESAMPLES = 2000, A_FRAME = 20, BARS = 60;
  const all = (selector, root) => [...(root || document).querySelectorAll(selector)];
  const signed = value => (value < 0 ? "" : "+") + value.toFixed(3).replace("-0.000", "0.000");
  const range = (low, high) => `${signed(low)} to ${signed(high)}`;

  // --- The changes: of all combinations the chosen one is told ---
  function startChanges(part) {
    const boxes = all("input", part), status = part.querySelector("[role=status]");
    const show = () => {
      const place = String(boxes.reduce((sum, box) => sum + (box.checked ? Number(box.value) : 0), 0));
      all(".viptt-row[data-cell]", part).forEach(row => row.toggleAttribute("data-chosen", row.dataset.cell === place));
      all(".viptt-cell", part).forEach(cell => { cell.hidden = cell.dataset.cell !== place; });
      status.textContent = part.querySelector(".viptt-cell:not([hidden]) .viptt-headline").textContent.trim();
    };
    all(".viptt-headline", part).forEach(line => { line.hidden = true; });
    boxes.forEach(box => box.addEventListener("change", show));
    show();
  }

  // --- Resampling: as viptt_core/statistics.py does it ---
  // Numbers from 0 to below n, the same after the same seed (mulberry32).
  function randomNumbers(seed) {
    return n => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * n);
    };
  }

  const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;
  const drawnMean = (values, random) => mean(values.map(() => values[random(values.length)]));

  // Score of a confusion table, rows true classes, that begins at `at`: kappa, or the mean recall of some classes.
  function score(tables, at, k, classes) {
    const row = i => { let sum = 0; for (let j = 0; j < k; j++) sum += tables[at + i * k + j]; return sum; };
    if (classes) return mean(classes.map(i => tables[at + i * k + i] / row(i)));
    let n = 0, right = 0, chance = 0;
    for (let i = 0; i < k; i++) {
      let column = 0;
      for (let j = 0; j < k; j++) column += tables[at + j * k + i];
      n += row(i);
      right += tables[at + i * k + i];
      chance += row(i) * column;
    }
    return (n * right - chance) / (n * n - chance);
  }

  // Runs that all test the same cases: {estimate, draw}; a draw is of test cases (groups whole) and of seeds.
  function twoLevels(contrast, arms, random) {
    const { k, classes, weights, widen } = contrast, labels = arms[0].labels, n = labels.length, size = k * k;
    const runs = contrast.runs.flatMap((numbers, a) => numbers.map(number => arms[a].runs[number]));
    const seeds = contrast.runs[0].length, pairs = new Uint8Array(n * runs.length);
    for (let i = 0; i < n; i++) runs.forEach((run, r) => { pairs[i * runs.length + r] = labels[i] * k + Number(run[i]); });
    const groups = [];
    (arms[0].groups || [...labels].map((_, i) => i)).forEach((group, i) => (groups[group] ||= []).push(i));
    const tables = new Float64Array(runs.length * size);
    const count = draw => {
      tables.fill(0);
      groups.forEach((group, g) => {
        for (const i of draw ? groups[random(groups.length)] : group) {
          for (let r = 0, from = i * runs.length; r < runs.length; r++) tables[r * size + pairs[from + r]]++;
        }
      });
      return contrast.runs[0].map((_, s) =>
        weights.reduce((sum, weight, a) => sum + weight * score(tables, (a * seeds + s) * size, k, classes), 0));
    };
    const ofSeed = count(false), estimate = mean(ofSeed);
    return { estimate, draw: () => mean(count(true)) + widen * (drawnMean(ofSeed, random) - estimate) };
  }

  // Runs that each test other cases: the runs themselves are drawn.
  function folds(contrast, random) {
    const estimate = mean(contrast.differences);
    return { estimate, draw: () => estimate + contrast.widen * (drawnMean(contrast.differences, random) - estimate) };
  }

  // As numpy.quantile, of sorted values.
  function quantile(values, share) {
    const place = (values.length - 1) * share, below = Math.floor(place), next = Math.min(below + 1, values.length - 1);
    return values[below] + (place - below) * (values[next] - values[below]);
  }

  // How a resample is drawn, in words, with the numbers of this contrast.
  function method(contrast, arms) {
    const widen = contrast.widen.toFixed(2);
    if (contrast.runs) {
      const n = arms[0].labels.length.toLocaleString("en"), seeds = contrast.runs[0].length;
      const drawn = arms[0].groups ? `groups of the ${n} test cases` : `${n} test cases`;
      return `A resample draws ${drawn} with replacement, the same for all arms and seeds. ` + (seeds === 1
        ? "There is one seed, so the interval covers test cases alone."
        : `It also draws ${seeds} seeds with replacement. The distance of their mean from the mean of all ${seeds} ` +
          `seeds is multiplied by ${widen}, because a few seeds understate the spread.`);
    }
    const values = contrast.differences, n = values.length, center = mean(values);
    const sd = Math.sqrt(values.reduce((sum, value) => sum + (value - center) ** 2, 0) / (n - 1));
    const error = sd * Math.sqrt(1 / n + contrast.overlap), overlap = contrast.overlap.toFixed(3);
    return `Each of the ${n} runs tests other cases, and their training sets overlap. The table therefore uses the ` +
      `formula of Nadeau and Bengio. Standard error: ${sd.toFixed(3)} (SD of the runs) × √(1/${n} + ${overlap}) = ` +
      `${error.toFixed(3)}, where ${overlap} is the number of test cases over the number of training cases. Times ` +
      `${contrast.t.toFixed(2)} (Student's t): ${(contrast.t * error).toFixed(3)} to either side. A resample draws ` +
      `${n} runs with replacement. The distance of their mean from the mean of all runs is multiplied by ${widen}, ` +
      `which gives the same standard error and t.`;
  }

  function startResampling(part) {
    const read = id => JSON.parse(document.getElementById(id).textContent);
    const find = name => part.querySelector(name);
    const contrasts = read("viptt-drawn"), choice = find("select"), button = find(".viptt-start");
    const [bars, drawn, tabled, axis] = [".viptt-bars", ".viptt-drawn", ".viptt-tabled", ".viptt-axis"].map(find);
    const count = find(".viptt-count"), status = find("[role=status]");
    let predictions = null, job = 0, contrast, at, arms;
    bars.append(...Array.from({ length: BARS }, () => document.createElement("i")));

    const interval = (track, low, high, center) => {
      track.innerHTML = "<s></s><b></b>";
      track.firstChild.style.cssText = `left: ${at(low)}%; width: ${at(high) - at(low)}%`;
      track.lastChild.style.left = `${at(center)}%`;
    };

    function choose() {
      job++; // ends one that draws
      contrast = contrasts[choice.value];
      const { low, high, difference } = contrast, width = high - low, from = low - 0.4 * width;
      at = value => Math.max(0, Math.min(100, (100 * (value - from)) / (1.8 * width)));
      predictions ||= contrast.runs ? read("viptt-predictions") : null; // not before they are asked for
      arms = contrast.runs ? contrast.arms.map(name => predictions[contrast.study][name]) : [];
      find("figcaption").textContent = `${choice.selectedOptions[0].text}. Dashed: no difference.`;
      find(".viptt-method").textContent = method(contrast, arms);
      interval(tabled, low, high, difference);
      const ticks = [low, difference, high];
      axis.innerHTML = ticks.map(value => `<span style="left: ${at(value)}%">${signed(value)}</span>`).join("");
      part.style.setProperty("--viptt-zero", at(0) > 0 && at(0) < 100 ? `${at(0)}%` : "-1000px");
      drawn.replaceChildren();
      all("i", bars).forEach(bar => { bar.style.height = "0"; });
      count.textContent = status.textContent = "";
    }

    function start() {
      choose();
      const mine = job, random = randomNumbers(mine), values = [], heights = new Array(BARS).fill(0);
      const { estimate, draw } = contrast.runs ? twoLevels(contrast, arms, random) : folds(contrast, random);
      let drawnSoFar = 0;
      const step = () => {
        if (mine !== job) return;
        for (let i = 0; i < A_FRAME; i++) {
          const value = draw();
          if (!Number.isFinite(value)) continue; // a class without cases: the table leaves it out, too
          values.push(value);
          heights[Math.min(BARS - 1, Math.floor((at(value) * BARS) / 100))]++;
        }
        drawnSoFar += A_FRAME;
        const sorted = Float64Array.from(values).sort(), tail = (1 - contrast.level) / 2;
        const low = quantile(sorted, tail), high = quantile(sorted, 1 - tail), most = Math.max(...heights);
        all("i", bars).forEach((bar, i) => { bar.style.height = `${(100 * heights[i]) / most}%`; });
        interval(drawn, low, high, estimate);
        count.textContent = `${drawnSoFar.toLocaleString("en")} of ${RESAMPLES.toLocaleString("en")} resamples`;
        if (drawnSoFar < RESAMPLES) return void requestAnimationFrame(step);
        status.textContent = `Resampled: ${signed(estimate)} (${range(low, high)}). ` +
          `In the table: ${signed(contrast.difference)} (${range(contrast.low, contrast.high)}).`;
        Object.assign(part.dataset, { estimate, low, high });
      };
      requestAnimationFrame(step);
    }

    choice.addEventListener("change", choose);
    button.addEventListener("click", start);
    all(".viptt-resample").forEach(one => {
      one.hidden = false;
      one.addEventListener("click", () => {
        choice.value = one.dataset.contrast;
        button.focus({ preventScroll: true });
        part.scrollIntoView({ block: "center" });
        start();
      });
    });
    choose();
  }

  const parts = { "viptt-changes": startChanges, "viptt-resampling": startResampling };
  document.addEventListener("DOMContentLoaded", () => {
    all(".viptt-scripted").forEach(part => { part.hidden = false; });
    for (const [id, begin] of Object.entries(parts)) {
      const part = document.getElementById(id);
      if (part) begin(part);
    }
  });
})();
