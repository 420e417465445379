// Pages through volumes and clips. Each viewer of a page calls this once; viewers share nothing else.
window.vipttViewer = window.vipttViewer || function (box, data) {
  const {clips, unit, hu, together} = data, {max, min, round, floor, abs, sign} = Math;
  const [low, high] = hu || [0, 255];  // what grey levels 0 and 255 stand for
  const whole = {level: (low + high) / 2, width: high - low}, units = hu ? " HU" : "";
  let shown = together ? clips : clips.slice(0, 1), at = 0, last = 0, timer = null, drag = null, turned = 0;
  let grey = {...whole}, hidden = [];

  function make(tag, attributes, parent, text) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  }
  const part = (name, parent, tag = "div", text) => make(tag, {class: "viptt-" + name}, parent, text);
  const on = (node, name, act, options) => node.addEventListener(name, act, options);
  const tell = (nodes, name, value) => nodes.forEach(node => node.setAttribute("aria-" + name, value));

  // --- The picture, one panel a clip ---------------------------------------------------------------
  const stills = box.querySelector(".viptt-stills"), words = box.querySelector("p");
  const picture = make("div", {class: "viptt-picture", role: "slider", tabindex: 0, "aria-valuemin": 1}, box);
  stills.replaceWith(picture);
  const panels = part("panels", picture);
  const foot = part("bar", picture);
  const windowed = part("window", foot, "span"), place = part("place", foot, "span");
  const controls = make("div", {}, box);
  words.before(controls);

  function build() {
    panels.textContent = "";
    last = max(...shown.map(clip => clip.numbers.length)) - 1;
    for (const clip of shown) {
      const panel = part("panel", panels), bar = part("bar", panel);
      make("span", {}, bar, clip.title);
      if (clip.synthetic) make("span", {}, bar, "synthetic");
      const layers = part("layers", panel), size = clip.sheet.size;
      layers.style.aspectRatio = size.join("/");
      clip.canvas = make("canvas", {width: size[0], height: size[1]}, layers);
      for (const overlay of clip.overlays) {
        if (overlay.sheet) {
          overlay.node = make("canvas", {width: overlay.sheet.size[0], height: overlay.sheet.size[1]}, layers);
        } else {
          layers.insertAdjacentHTML("beforeend", '<svg preserveAspectRatio="none"><path/></svg>');
          overlay.node = layers.lastChild;
          overlay.node.setAttribute("viewBox", "0 0 " + overlay.size.join(" "));
          overlay.node.firstChild.setAttribute("stroke", data.outline);
        }
      }
      if (data.sides) for (const letter of ["R", "L"]) part("side", layers, "span", letter);
    }
    const caption = together ? data.caption : shown[0].caption;
    words.textContent = caption;
    tell([picture], "label", caption || "picture");
    tell([picture], "valuemax", last + 1);
    range.max = last;
    showOverlays();
  }

  // Grey levels of all steps of a clip or map; decoded once, so that a step is shown at once.
  function load(sheet) {
    return sheet.loaded = sheet.loaded || new Promise(resolve => {
      const image = new Image();
      image.onload = () => {
        const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
        canvas.width = image.width; canvas.height = image.height;
        context.drawImage(image, 0, 0);
        const colours = context.getImageData(0, 0, image.width, image.height).data;
        sheet.levels = new Uint8Array(colours.length / 4);
        for (let i = 0; i < sheet.levels.length; i++) sheet.levels[i] = colours[4 * i];
        resolve();
      };
      image.src = "data:image/webp;base64," + sheet.picture;
    });
  }

  function paint(canvas, sheet, step, table) {
    if (!sheet.levels) { load(sheet).then(show); return; }
    const [width, height] = sheet.size, [wide, tall] = sheet.tile, line = sheet.columns * wide;
    const start = floor(step / sheet.columns) * tall * line + step % sheet.columns * wide;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) pixels[y * width + x] = table[sheet.levels[start + y * line + x]];
    context.putImageData(image, 0, 0);
  }

  function table(colourOf) {  // of red, green, blue, alpha 0..255, as a canvas stores them
    const bytes = new Uint8ClampedArray(1024);
    for (let level = 0; level < 256; level++) bytes.set(colourOf(level), 4 * level);
    return new Uint32Array(bytes.buffer);
  }
  const heat = table(level => {
    const place = level / 255 * (data.colours.length - 1), k = min(floor(place), data.colours.length - 2);
    return [0, 1, 2].map(c => data.colours[k][c] + (place - k) * (data.colours[k + 1][c] - data.colours[k][c]))
      .concat(min(2 * level, 255));
  });

  function show() {
    const greys = table(level => {
      const value = low + level / 255 * (high - low);
      const shade = 255 * ((value - grey.level) / grey.width + 0.5);
      return [shade, shade, shade, 255];
    });
    for (const clip of shown) {
      const step = last ? round(at * (clip.numbers.length - 1) / last) : 0;
      paint(clip.canvas, clip.sheet, step, greys);
      clip.overlays.forEach(overlay => overlay.sheet ? paint(overlay.node, overlay.sheet, step, heat)
        : overlay.node.firstChild.setAttribute("d", overlay.paths[step]));
    }
    const longest = shown.find(clip => clip.numbers.length > last), number = longest.numbers[at];
    const mm = together || !longest.mm ? "" : ", " + round((number - 1) * longest.mm) + " mm from the first";
    const told = sign => unit + " " + number + sign + longest.count + mm;
    place.textContent = told("/");
    range.value = at;
    tell([picture], "valuenow", at + 1);
    tell([picture, range], "valuetext", told(" of "));
  }

  function move(to) {
    at = max(0, min(last, to));
    show();
  }
  function page(to) { stop(); move(to); }

  // --- Play ------------------------------------------------------------------------------------------
  const player = part("row", controls), pace = data.rate + " a second";
  const play = make("button", {type: "button", class: "viptt-play", title: pace}, player);
  const range = make("input", {type: "range", min: 0, "aria-label": unit}, player);
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "\u25b6\ufe0e";
    tell([play], "label", "play");
  }
  function toggle() {
    if (timer) return stop();
    play.textContent = "\u275a\u275a";
    tell([play], "label", "pause");
    timer = setInterval(() => {
      // No endless motion where it disturbs.
      if (!box.isConnected || at === last && matchMedia("(prefers-reduced-motion: reduce)").matches) return stop();
      move(at === last ? 0 : at + 1);
    }, 1000 / data.rate);
  }
  on(play, "click", toggle);
  on(range, "input", () => page(+range.value));

  // --- Choose a clip ---------------------------------------------------------------------------------
  if (!together && clips.length > 1) {
    const line = part("row", box), label = make("label", {}, line, "clip");
    const select = make("select", {}, label);
    box.prepend(line);
    for (const heading of new Set(data.headings)) {
      const group = make("optgroup", {label: heading}, select);
      data.headings.forEach((one, i) => one === heading && make("option", {value: i}, group, data.options[i]));
    }
    on(select, "change", () => {
      const share = last ? at / last : 0;
      shown = [clips[select.value]];
      build();
      move(round(share * last));
    });
  }

  // --- Window and level ------------------------------------------------------------------------------
  const choices = part("row", controls), presets = data.presets.map(([name, from, to]) => {
    const button = make("button", {type: "button", title: from + " to " + to + units}, choices, name);
    on(button, "click", () => setWindow((from + to) / 2, to - from));
    return [button, (from + to) / 2, to - from];
  });
  const more = make("details", {}, controls);
  more.open = Boolean(hu) && !together;
  make("summary", {}, more, "Window and level");
  function slider(name, least, most) {
    const label = make("label", {}, part("row", more), name);
    const input = make("input", {type: "range", min: least, max: most, step: hu ? 10 : 1}, label);
    on(input, "input", () => setWindow(+levels.value, +widths.value));
    return input;
  }
  const levels = slider("level", low, high), widths = slider("width", hu ? 10 : 1, hu ? 2000 : 510);
  const back = make("button", {type: "button"}, hu ? choices : more, "reset window");
  on(back, "click", reset);
  if (!presets.length) choices.remove();

  function setWindow(level, width) {
    grey = {level: max(low, min(high, level)), width: max(hu ? 10 : 1, width)};
    levels.value = grey.level;
    widths.value = grey.width;
    tell([levels], "valuetext", round(grey.level) + units);
    tell([widths], "valuetext", round(grey.width) + units);
    windowed.textContent = "W " + round(grey.width) + " L " + round(grey.level) + units;
    for (const [button, one, other] of presets) tell([button], "pressed", one === grey.level && other === grey.width);
    show();
  }
  function reset() { setWindow(whole.level, whole.width); }

  // --- Overlays, switched by name in all clips ---------------------------------------------------------
  const switches = new Map();
  for (const overlay of clips.flatMap(clip => clip.overlays)) {
    if (switches.has(overlay.name)) continue;
    const name = overlay.name, line = part("row", controls), label = make("label", {}, line);
    const tick = make("input", {type: "checkbox"}, label), swatch = part("swatch", label, "span");
    label.append(name);
    const legend = "linear-gradient(90deg," + data.colours.map(c => "rgb(" + c + ")") + ")";
    swatch.style.cssText = overlay.sheet ? "background:" + legend : "height:0;border-top:3px solid " + data.outline;
    const opacity = make("input", {type: "range", min: 0, max: 100, "aria-label": "opacity of " + name}, line);
    tick.checked = true;
    opacity.value = overlay.sheet ? 60 : 100;
    on(tick, "change", showOverlays);
    on(opacity, "input", showOverlays);
    switches.set(name, {tick, opacity});
  }
  function showOverlays() {
    for (const overlay of shown.flatMap(clip => clip.overlays)) {
      const {tick, opacity} = switches.get(overlay.name);
      overlay.node.style.visibility = tick.checked ? "visible" : "hidden";
      overlay.node.style.opacity = opacity.value / 100;
    }
  }
  function toggleOverlays() {
    const ticks = [...switches.values()].map(one => one.tick), visible = ticks.filter(tick => tick.checked);
    for (const tick of ticks) tick.checked = !visible.length && (!hidden.length || hidden.includes(tick));
    if (visible.length) hidden = visible;
    showOverlays();
  }

  // --- Keys, wheel, touch ------------------------------------------------------------------------------
  const keys = {
    ArrowLeft: () => page(at - 1), ArrowUp: () => page(at - 1), ArrowRight: () => page(at + 1),
    ArrowDown: () => page(at + 1), PageUp: () => page(at - 10), PageDown: () => page(at + 10), Home: () => page(0),
    End: () => page(last), " ": toggle, o: toggleOverlays, r: reset,
  };
  on(picture, "keydown", e => {
    const act = keys[e.key.length > 1 ? e.key : e.key.toLowerCase()];
    if (!act || e.ctrlKey || e.altKey || e.metaKey) return;
    e.preventDefault();
    e.stopPropagation();  // the page may have keys of its own
    act();
  });
  const help = make("details", {}, controls);
  make("summary", {}, help, "Keys, mouse and touch");
  const list = make("p", {}, help);
  for (const [key, does] of data.keys) { make("kbd", {}, list, key); list.append(" " + does + " "); }

  // A reader who scrolls through the page and meets the picture on the way scrolls on.
  let scrolled = -1e9;
  on(window, "scroll", e => { scrolled = e.timeStamp; }, {passive: true});
  on(picture, "wheel", e => {
    if (e.ctrlKey || abs(e.deltaX) > abs(e.deltaY)) return;
    if (document.activeElement !== picture && e.timeStamp - scrolled < 300) return;
    if (e.deltaY > 0 ? at === last : at === 0) return;
    e.preventDefault();
    turned += e.deltaMode ? 100 * sign(e.deltaY) : e.deltaY;
    if (abs(turned) < 24) return;  // touch pads send many small turns
    page(at + sign(turned));
    turned = 0;
  }, {passive: false});

  // Across: page; up and down is the page's own scrolling. With shift: window, as in a DICOM viewer.
  on(picture, "pointerdown", e => {
    if (e.button) return;
    drag = {x: e.clientX, y: e.clientY, at, steps: 0, ...grey, windows: e.shiftKey};
    picture.setPointerCapture(e.pointerId);
  });
  on(picture, "pointermove", e => {
    if (!drag) return;
    const x = e.clientX - drag.x, y = e.clientY - drag.y, one = whole.width / 300;
    if (drag.windows) return setWindow(drag.level + y * one, drag.width + x * one);
    const steps = Math.trunc(x / max(4, picture.clientWidth / 2 / (last + 1)));
    if (steps !== drag.steps) page(drag.at + steps);
    drag.steps = steps;
  });
  for (const end of ["pointerup", "pointercancel"]) on(picture, end, () => { drag = null; });

  stop();
  build();
  at = min(last, data.start);
  reset();
};
