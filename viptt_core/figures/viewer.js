// Pages through volumes and clips. A page has it as a script; a live widget as its module. Viewers share nothing.
function vipttViewer(box, data) {
  const { views, unit } = data, { max, min, round, abs, sign, trunc } = Math;
  const [low, high] = data.hu || [0, 255]; // what grey levels 0 and 255 stand for
  const units = data.hu ? " HU" : "", fine = data.hu ? 10 : 1;
  const filter = "viptt" + Math.random().toString(36).slice(2);
  let panels = [], at = 0, last = 0, timer = null, drag = null, turned = 0, hidden = [];
  let level = (low + high) / 2, width = high - low;

  function make(tag, attributes, parent, text = "") {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return parent.appendChild(node);
  }
  const part = (name, parent, tag = "div", text) => make(tag, { class: "viptt-" + name }, parent, text);
  const on = (node, name, act, options) => node.addEventListener(name, act, options);
  const tell = (node, name, value) => node.setAttribute("aria-" + name, value);
  const clamp = (value, least, most) => max(least, min(most, value));

  box.replaceChildren();
  box.style.maxWidth = data.width + "px";
  // The page, or JupyterLab, has keys of its own, such as one to delete a cell.
  on(box, "keydown", event => { if (!event.ctrlKey && !event.altKey && !event.metaKey) event.stopPropagation(); });
  if (views.length > 1) {
    const select = make("select", {}, make("label", {}, part("row", box), "clip"));
    const groups = new Map(views.map(view => [view.heading, null]));
    for (const heading of groups.keys()) groups.set(heading, make("optgroup", { label: heading }, select));
    views.forEach((view, i) => make("option", { value: i }, groups.get(view.heading), view.label));
    on(select, "change", () => { stop(); choose(views[select.value]); });
  }

  // --- The picture: a panel a clip, in it the grey image, and over it maps and outlines -------------------------
  const picture = make("div", { class: "viptt-picture", role: "slider", tabindex: 0, "aria-valuemin": 1 }, box);
  const frame = part(views[0].clips.length > 1 ? "panels viptt-many" : "panels", picture);
  const foot = part("bar", picture), windowed = part("window", foot, "span"), place = part("place", foot, "span");
  const functions = ["R", "G", "B"].map(c => `<feFunc${c} type="linear"/>`).join("");
  foot.insertAdjacentHTML("beforeend", '<svg width="0" height="0" style="position:absolute" aria-hidden="true">' +
    `<filter id="${filter}" color-interpolation-filters="sRGB"><feComponentTransfer>${functions}</feComponentTransfer>` +
    "</filter></svg>");

  function choose(view) {
    frame.textContent = "";
    panels = view.clips.map(clip => {
      const panel = part("panel", frame), bar = part("bar", panel), layers = part("layers", panel);
      make("span", {}, bar, clip.title);
      if (clip.synthetic) make("span", {}, bar, "synthetic");
      if (data.sides) for (const letter of ["R", "L"]) part("side", layers, "span", letter);
      const [w, h] = clip.size, image = `<image width="${w}" height="${h}" preserveAspectRatio="none"/>`;
      const drawn = clip.overlays.map(one => one.paths ? `<path transform="scale(${w / one.size[0]} ${h / one.size[1]})"/>`
        : image);
      layers.insertAdjacentHTML("beforeend", `<svg viewBox="0 0 ${w} ${h}">${image}${drawn.join("")}</svg>`);
      const nodes = [...layers.lastChild.children], contents = [clip, ...clip.overlays];
      nodes[0].setAttribute("filter", `url(#${filter})`);
      for (const { frames = [] } of contents) for (const one of frames) new Image().src = address(one); // decoded early
      return { clip, nodes, contents };
    });
    last = max(...view.clips.map(clip => clip.steps)) - 1;
    caption.textContent = view.caption;
    tell(picture, "label", view.caption || "picture");
    tell(picture, "valuemax", last + 1);
    range.max = last;
    showOverlays();
    move(view.start);
  }
  const address = frame => "data:image/webp;base64," + frame;

  function move(to) {
    at = clamp(to, 0, last);
    for (const { clip, nodes, contents } of panels) {
      const step = last ? round(at * (clip.steps - 1) / last) : 0; // a shorter clip goes slower
      contents.forEach(({ frames, paths }, i) =>
        frames ? nodes[i].setAttribute("href", address(frames[step])) : nodes[i].setAttribute("d", paths[step]));
    }
    place.textContent = `${unit} ${at + 1}/${last + 1}`;
    range.value = at;
    tell(picture, "valuenow", at + 1);
    for (const node of [picture, range]) tell(node, "valuetext", `${unit} ${at + 1} of ${last + 1}`);
  }
  function page(to) { stop(); move(to); }

  // --- Play -------------------------------------------------------------------------------------------------------
  const player = part("row", box);
  const play = make("button", { type: "button", class: "viptt-play", title: data.rate + " a second" }, player);
  const range = make("input", { type: "range", min: 0, "aria-label": unit }, player);
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "\u25b6\ufe0e";
    tell(play, "label", "play");
  }
  function toggle() {
    if (timer) return stop();
    play.textContent = "\u275a\u275a";
    tell(play, "label", "pause");
    timer = setInterval(() => {
      // No endless motion where it disturbs.
      if (!box.isConnected || at === last && matchMedia("(prefers-reduced-motion: reduce)").matches) return stop();
      move(at === last ? 0 : at + 1);
    }, 1000 / data.rate);
  }
  on(play, "click", toggle);
  on(range, "input", () => page(+range.value));

  // --- Window and level -------------------------------------------------------------------------------------------
  const choices = part("row", box), more = make("details", {}, box), sliders = {};
  make("summary", {}, more, "Window and level");
  const presets = data.presets.map(([name, from, to]) => {
    const button = make("button", { type: "button", title: `${from} to ${to}${units}` }, choices, name);
    on(button, "click", () => setWindow((from + to) / 2, to - from));
    return [button, (from + to) / 2, to - from];
  });
  on(make("button", { type: "button" }, choices, "reset window"), "click", reset);
  for (const [name, least, most] of [["level", low, high], ["width", fine, 2 * (high - low)]]) {
    const label = make("label", {}, part("row", more), name);
    sliders[name] = make("input", { type: "range", min: least, max: most, step: fine }, label);
    on(sliders[name], "input", () => setWindow(+sliders.level.value, +sliders.width.value));
  }
  function setWindow(toLevel, toWidth) {
    level = sliders.level.value = clamp(toLevel, low, high);
    width = sliders.width.value = max(fine, toWidth);
    tell(sliders.level, "valuetext", round(level) + units);
    tell(sliders.width, "valuetext", round(width) + units);
    windowed.textContent = `W ${round(width)} L ${round(level)}${units}`;
    for (const [button, one, other] of presets) tell(button, "pressed", one === level && other === width);
    for (const node of foot.querySelectorAll("feComponentTransfer > *")) {
      node.setAttribute("slope", (high - low) / width);
      node.setAttribute("intercept", (low - level) / width + 0.5);
    }
  }
  function reset() { setWindow((low + high) / 2, high - low); }

  // --- Overlays, switched by name in all clips --------------------------------------------------------------------
  const switches = new Map();
  for (const { name, paths } of views.flatMap(view => view.clips.flatMap(clip => clip.overlays))) {
    if (switches.has(name)) continue;
    const line = part("row", box), label = make("label", {}, line);
    const tick = make("input", { type: "checkbox" }, label);
    part(paths ? "swatch viptt-outline" : "swatch", label, "span");
    label.append(name);
    const opacity = make("input", { type: "range", min: 0, max: 100, "aria-label": "opacity of " + name }, line);
    tick.checked = true;
    opacity.value = paths ? 100 : 60;
    for (const control of [tick, opacity]) on(control, "input", showOverlays);
    switches.set(name, { tick, opacity });
  }
  function showOverlays() {
    for (const { clip, nodes } of panels) clip.overlays.forEach((overlay, i) => {
      const { tick, opacity } = switches.get(overlay.name);
      nodes[i + 1].style.visibility = tick.checked ? "visible" : "hidden";
      nodes[i + 1].style.opacity = opacity.value / 100;
    });
  }
  function toggleOverlays() {
    const ticks = [...switches.values()].map(one => one.tick), visible = ticks.filter(tick => tick.checked);
    for (const tick of ticks) tick.checked = !visible.length && (!hidden.length || hidden.includes(tick));
    if (visible.length) hidden = visible;
    showOverlays();
  }

  // --- Keys, wheel, touch -----------------------------------------------------------------------------------------
  const keys = {
    ArrowLeft: () => page(at - 1), ArrowUp: () => page(at - 1), ArrowRight: () => page(at + 1),
    ArrowDown: () => page(at + 1), PageUp: () => page(at - 10), PageDown: () => page(at + 10), Home: () => page(0),
    End: () => page(last), " ": toggle, o: toggleOverlays, r: reset,
  };
  on(picture, "keydown", event => {
    const act = keys[event.key.length > 1 ? event.key : event.key.toLowerCase()];
    if (!act || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    act();
  });
  const help = make("details", {}, box);
  make("summary", {}, help, "Keys, mouse and touch");
  make("p", {}, help, `Click the picture first. Arrows: one ${unit}. Page Up, Page Down: ten. Home, End: first, last. ` +
    "Space: play, pause. o: overlays on, off. r: reset the window. Wheel, or swipe across: page. " +
    "Shift and drag: window and level.");
  const caption = make("p", {}, box);

  // A reader who scrolls through the page and meets the picture on the way scrolls on.
  let scrolled = -1e9;
  on(window, "scroll", event => { scrolled = event.timeStamp; }, { passive: true });
  on(picture, "wheel", event => {
    if (event.ctrlKey || abs(event.deltaX) > abs(event.deltaY)) return;
    if (document.activeElement !== picture && event.timeStamp - scrolled < 300) return;
    if (event.deltaY > 0 ? at === last : at === 0) return;
    event.preventDefault();
    turned += event.deltaMode ? 100 * sign(event.deltaY) : event.deltaY;
    if (abs(turned) < 24) return; // touch pads send many small turns
    page(at + sign(turned));
    turned = 0;
  }, { passive: false });

  // Across: page; up and down is the page's own scrolling. With shift: window, as in a DICOM viewer.
  on(picture, "pointerdown", event => {
    if (event.button) return;
    drag = { x: event.clientX, y: event.clientY, at, level, width, steps: 0, windows: event.shiftKey };
    picture.setPointerCapture(event.pointerId);
  });
  on(picture, "pointermove", event => {
    if (!drag) return;
    const x = event.clientX - drag.x, y = event.clientY - drag.y, one = (high - low) / 300;
    if (drag.windows) return setWindow(drag.level + y * one, drag.width + x * one);
    const steps = trunc(x / max(4, picture.clientWidth / 2 / (last + 1)));
    if (steps !== drag.steps) page(drag.at + steps);
    drag.steps = steps;
  });
  for (const end of ["pointerup", "pointercancel"]) on(picture, end, () => { drag = null; });

  stop();
  reset();
  choose(views[0]);
}
