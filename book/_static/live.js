/* The page "What does the network use?": the trained layers of the demo, run on what the frozen backbone made of the
   slices. The same function as viptt_core/model.py with `temporal` "projected lstm". */
(function () {
  "use strict";
  const WHOLE = "The whole scan"; // as nobody has changed it
  const EPSILON = 1e-5; // of PyTorch's batch normalisation
  const COLUMNS = 8; // of slices in a picture of a scan
  const all = (selector, root) => [...root.querySelectorAll(selector)];

  // --- The network ---
  const unpack = text => new Float32Array(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
  const sigmoid = value => 1 / (1 + Math.exp(-value));

  // weight x + bias; weight is [outputs, inputs], row by row.
  const linear = (weight, bias, x) => bias.map((start, row) => {
    let sum = start;
    for (let i = 0, at = row * x.length; i < x.length; i++) sum += weight[at + i] * x[i];
    return sum;
  });

  function softmax(logits) {
    const most = Math.max(...logits), powers = [...logits].map(value => Math.exp(value - most));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map(value => value / sum);
  }

  // {read, decide}: features of a slice -> input of the LSTM; inputs of all slices in order -> probabilities.
  function network(packed) {
    const arrays = Object.fromEntries(Object.entries(packed).map(([name, text]) => [name, unpack(text)]));
    const mean = arrays["temporal.standardise.running_mean"], variance = arrays["temporal.standardise.running_var"];
    const layer = (name, x) => linear(arrays[`${name}.weight`], arrays[`${name}.bias`], x);
    const ofLSTM = name => arrays[`temporal.lstm.${name}_l0`];
    const [inputs, recurrent, bias] = ["weight_ih", "weight_hh", "bias_ih"].map(ofLSTM);
    const size = bias.length / 4, zero = new Float32Array(bias.length);
    const read = slice =>
      layer("temporal.value", slice.map((value, i) => (value - mean[i]) / Math.sqrt(variance[i] + EPSILON)));
    const decide = steps => {
      const state = new Float32Array(size), cell = new Float32Array(size);
      for (const step of steps) {
        const [ahead, back] = [linear(inputs, bias, step), linear(recurrent, zero, state)];
        const gate = (number, i) => ahead[number * size + i] + back[number * size + i]; // input, forget, cell, output
        for (let i = 0; i < size; i++) {
          cell[i] = sigmoid(gate(1, i)) * cell[i] + sigmoid(gate(0, i)) * Math.tanh(gate(2, i));
          state[i] = sigmoid(gate(3, i)) * Math.tanh(cell[i]);
        }
      }
      return softmax(layer("classifier", layer("feature", state).map(value => Math.max(0, value))));
    };
    return { read, decide };
  }

  // --- The page ---
  function start(part) {
    const data = JSON.parse(document.getElementById("viptt-live-data").textContent);
    const networks = data.weights.map(network), features = data.features.map(unpack), empty = unpack(data.empty);
    const pictures = all(".viptt-phantom", part), strip = part.querySelector(".viptt-slices");
    const rows = all(".viptt-chances li", part), names = rows.map(row => row.firstChild.textContent);
    const status = part.querySelector("[role=status]"), form = part.querySelector("form");
    const { phantom: phantomChoice, network: networkChoice } = form.elements;
    const steps = data.findings[0].length, slices = Array.from({ length: steps }, (_, slice) => slice);
    let order, hidden, finding, inputs, emptyInput, whole, decide;

    const buttons = slices.map(place => {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.append(document.createElement("i"), document.createElement("span"));
      button.addEventListener("click", () => {
        hidden[order[place]] = !hidden[order[place]];
        show();
      });
      item.append(button);
      strip.append(item);
      return button;
    });

    const best = chances => chances.indexOf(Math.max(...chances));
    const percent = chance => `${(100 * chance).toFixed(1)}\u00a0%`;

    // What was done to the scan, in words.
    function state() {
      const gone = slices.filter(slice => hidden[slice]), met = gone.filter(slice => finding[slice]).length;
      const turned = order.every((slice, place) => slice === steps - 1 - place);
      const moved = order.some((slice, place) => slice !== place);
      const said = [];
      if (gone.length) said.push(`${gone.length} of ${steps} slices hidden, ${met} with the finding`);
      if (moved) said.push(turned ? "Order reversed" : "Order shuffled");
      return said.join(". ") || WHOLE;
    }

    function show() {
      buttons.forEach((button, place) => {
        const slice = order[place], caption = `${slice + 1}${finding[slice] ? " finding" : ""}`;
        button.setAttribute("aria-pressed", hidden[slice]);
        button.setAttribute("aria-label", `Hide slice ${caption}`);
        button.toggleAttribute("data-finding", finding[slice]);
        button.dataset.slice = slice;
        const [x, y] = [(slice % COLUMNS) / (COLUMNS - 1), Math.floor(slice / COLUMNS) / (steps / COLUMNS - 1)];
        button.firstChild.style.backgroundPosition = `${100 * x}% ${100 * y}%`;
        button.lastChild.textContent = caption;
      });
      const chances = decide(order.map(slice => (hidden[slice] ? emptyInput : inputs[slice])));
      const truth = Number(phantomChoice.value), before = best(whole), now = best(chances), words = state();
      const was = k => (words === WHOLE ? "" : ` (was ${percent(whole[k])})`);
      rows.forEach((row, k) => {
        const [name, value, track] = row.children;
        name.textContent = `${names[k]}${k === truth ? " (true type)" : ""}`;
        value.textContent = `${percent(chances[k])}${was(k)}`;
        track.firstChild.style.width = `${100 * chances[k]}%`;
        track.lastChild.style.left = `${100 * whole[k]}%`;
        row.dataset.chance = chances[k];
        row.toggleAttribute("data-predicted", k === now);
      });
      const still = words !== WHOLE && now === before ? "still " : "";
      const other = now === before ? "" : ` (was ${names[before]})`;
      status.textContent = `${words}. The network ${still}predicts ${names[now]}${other}. ` +
        `Probability of the true type, ${names[truth]}: ${percent(chances[truth])}${was(truth)}.`;
    }

    function reset() {
      order = [...slices];
      hidden = slices.map(() => false);
    }

    function choose() {
      const number = Number(phantomChoice.value), values = features[number], width = values.length / steps;
      const chosen = networks[networkChoice.value];
      decide = chosen.decide;
      finding = data.findings[number];
      inputs = slices.map(slice => chosen.read(values.subarray(slice * width, (slice + 1) * width)));
      emptyInput = chosen.read(empty);
      whole = decide(inputs);
      strip.style.setProperty("--viptt-scan", `url("${pictures[number].querySelector("img").src}")`);
      show();
    }

    const does = {
      with: () => { hidden = [...finding]; },
      without: () => { hidden = finding.map(marked => !marked); },
      reverse: () => { order.reverse(); },
      reset,
      shuffle: () => {
        for (let i = steps - 1; i > 0; i--) {
          const j = Math.floor(Math.random() * (i + 1));
          [order[i], order[j]] = [order[j], order[i]];
        }
      },
    };
    all("[data-does]", form).forEach(button => button.addEventListener("click", () => {
      does[button.dataset.does]();
      show();
    }));
    form.addEventListener("submit", event => event.preventDefault());
    phantomChoice.addEventListener("change", () => { reset(); choose(); });
    networkChoice.addEventListener("change", choose); // what is hidden stays hidden: two networks on the same slices
    pictures.forEach(one => { one.hidden = true; });
    all(".viptt-scripted", part).forEach(one => { one.hidden = false; });
    reset();
    choose();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const part = document.getElementById("viptt-live");
    if (part) start(part);
  });
})();
