// Pages through volumes and clips. Viewers on a page share nothing.
function vipttViewer(box, data) {
  const { views, unit } = data, { max, min, round, abs, sign, trunc } = Math;
  const [low, high] = data.hu || [0, 255]; // what grey levels 0 and 255 stand for
  const units = data.hu ? " HU" : "", fine = data.hu ? 10 : 1;
  const filter = "viptt" + Math.random().toString(36).slice(2);
  let panels = [], at = 0, last = 0, timer = null, drag = null, turned = 0, overlaid = true, scrolled = -1e9;

  box.style.maxWidth = data.width + "px";
  box.innerHTML = `
    <div class="viptt-row viptt-choice"><label>clip<select></select></label></div>
    <div class="viptt-picture" role="slider" tabindex="0" aria-valuemin="1">
      <div class="viptt-panels"></div>
      <div class="viptt-bar"><span class="viptt-window"></span><span class="viptt-place"></span></div>
      <svg width="0" height="0" style="position:absolute" aria-hidden="true"><filter id="${filter}"
        color-interpolation-filters="sRGB"><feComponentTransfer><feFuncR type="linear"/><feFuncG type="linear"/>
        <feFuncB type="linear"/></feComponentTransfer></filter></svg>
    </div>
    <div class="viptt-row"><button type="button" class="viptt-play"></button><input type="range" min="0"></div>
    <div class="viptt-row viptt-presets"></div>
    <details><summary>Window and level</summary>
      <div class="viptt-row"><label>level<input type="range" min="${low}" max="${high}" step="${fine}"></label></div>
      <div class="viptt-row"><label>width<input type="range" min="${fine}" max="${2 * (high - low)}" step="${fine}"></label>
      </div></details>
    <div class="viptt-overlays"></div>
    <details><summary>Keys, mouse and touch</summary><p>Click the picture first. Arrows: one step. Page Up, Page Down: ten.
      Home, End: first, last. Space: play, pause. o: overlays on, off. r: reset the window. Wheel, or swipe across: page.</p>
    </details>
    <p class="viptt-caption"></p>`;
  const part = name => box.querySelector(".viptt-" + name);
  const picture = part("picture"), frame = part("panels"), play = part("play"), range = play.nextSibling;
  const [levels, widths] = box.querySelectorAll("details label input");
  const on = (node, name, act, options) => node.addEventListener(name, act, options);
  const tell = (node, name, value) => node.setAttribute("aria-" + name, value);
  const clamp = (value, least, most) => max(least, min(most, value));
  const address = encoded => "data:image/webp;base64," + encoded;
  function add(parent, tag, name = "", text = "") {
    const node = document.createElement(tag);
    node.className = name;
    node.textContent = text;
    return parent.appendChild(node);
  }

  // --- The picture: a panel a clip, in it the grey image, and over it outlines -------------------------
  function choose(view) {
    frame.textContent = "";
    panels = view.clips.map(clip => {
      const panel = add(frame, "div"), bar = add(panel, "div", "viptt-bar"), layers = add(panel, "div", "viptt-layers");
      add(bar, "span", "", clip.title);
      if (clip.synthetic) add(bar, "span", "", "synthetic");
      if (data.sides) for (const letter of ["R", "L"]) add(layers, "span", "viptt-side", letter);
      const [w, h] = clip.size, image = `<image width="${w}" height="${h}" preserveAspectRatio="none"/>`;
      const drawn = clip.overlays.map(one => `<path transform="scale(${w / one.size[0]} ${h / one.size[1]})"/>`);
      layers.insertAdjacentHTML("beforeend", `<svg viewBox="0 0 ${w} ${h}">${image}${drawn.join("")}</svg>`);
      const nodes = [...layers.lastChild.children];
      nodes[0].setAttribute("filter", `url(#${filter})`);
      for (const one of clip.frames) new Image().src = address(one); // decoded early
      return { clip, nodes };
    });
    last = range.max = max(...view.clips.map(clip => clip.steps)) - 1;
    part("caption").textContent = view.caption;
    tell(picture, "label", view.caption || "picture");
    tell(picture, "valuemax", last + 1);
    showOverlays();
    move(view.start);
  }
  function move(to) {
    at = range.value = clamp(to, 0, last);
    for (const { clip, nodes } of panels) {
      const step = last ? round(at * (clip.steps - 1) / last) : 0; // a shorter clip goes slower
      nodes[0].setAttribute("href", address(clip.frames[step]));
      clip.overlays.forEach(({ paths }, i) => nodes[i + 1].setAttribute("d", paths[step]));
    }
    part("place").textContent = `${unit} ${at + 1}/${last + 1}`;
    tell(picture, "valuenow", at + 1);
    for (const node of [picture, range]) tell(node, "valuetext", `${unit} ${at + 1} of ${last + 1}`);
  }
  function page(to) { stop(); move(to); }
  frame.classList.toggle("viptt-many", views[0].clips.length > 1);
  const select = box.querySelector("select");
  views.forEach(({ clips }, i) => { add(select, "option", "", clips[0].title).value = i; });
  if (views.length === 1) part("choice").remove();
  on(select, "change", () => { stop(); choose(views[select.value]); });

  // --- Play -------------------------------------------------------------------------------------------------------
  function stop() {
    timer = clearInterval(timer);
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
  play.title = data.rate + " a second";
  tell(range, "label", unit);
  on(play, "click", toggle);
  on(range, "input", () => page(+range.value));

  // --- Window and level -------------------------------------------------------------------------------------------
  function setWindow(toLevel, toWidth) {
    const level = levels.value = clamp(toLevel, low, high), width = widths.value = max(fine, toWidth);
    tell(levels, "valuetext", round(level) + units);
    tell(widths, "valuetext", round(width) + units);
    part("window").textContent = `W ${round(width)} L ${round(level)}${units}`;
    for (const [button, one, other] of presets.slice(0, -1)) tell(button, "pressed", one === level && other === width);
    for (const node of box.querySelectorAll("feComponentTransfer > *")) {
      node.setAttribute("slope", (high - low) / width);
      node.setAttribute("intercept", (low - level) / width + 0.5);
    }
  }
  const presets = [...data.presets, ["reset window", low, high]].map(([name, from, to]) => {
    const button = add(part("presets"), "button", "", name);
    button.title = `${from} to ${to}${units}`;
    on(button, "click", () => setWindow((from + to) / 2, to - from));
    return [button, (from + to) / 2, to - from];
  });
  const reset = () => presets.at(-1)[0].click();
  for (const slider of [levels, widths]) on(slider, "input", () => setWindow(+levels.value, +widths.value));

  // --- Overlays, switched by name in all clips --------------------------------------------------------------------
  const switches = Object.create(null);
  for (const { name } of views.flatMap(view => view.clips.flatMap(clip => clip.overlays))) {
    if (switches[name]) continue;
    const row = add(part("overlays"), "div", "viptt-row");
    row.innerHTML = `<label><input type="checkbox" checked><span class="viptt-outline"></span></label>
      <input type="range" min="0" max="100" value="100">`;
    const [tick, opacity] = switches[name] = row.querySelectorAll("input");
    tick.parentElement.append(name);
    tell(opacity, "label", "opacity of " + name);
    for (const control of [tick, opacity]) on(control, "input", () => { overlaid = true; showOverlays(); });
  }
  function showOverlays() {
    for (const { clip, nodes } of panels) clip.overlays.forEach(({ name }, i) => {
      const [tick, opacity] = switches[name];
      nodes[i + 1].style.opacity = overlaid && tick.checked ? opacity.value / 100 : 0;
    });
  }

  // --- Keys, wheel, touch -----------------------------------------------------------------------------------------
  const keys = {
    " ": toggle, o: () => { overlaid = !overlaid; showOverlays(); }, r: reset, Home: () => page(0), End: () => page(last),
  };
  for (const [key, steps] of [["ArrowLeft", -1], ["ArrowUp", -1], ["ArrowRight", 1], ["ArrowDown", 1], ["PageUp", -10],
    ["PageDown", 10]]) keys[key] = () => page(at + steps);
  on(box, "keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    event.stopPropagation(); // the page, or JupyterLab, has keys of its own, such as one to delete a cell
    const act = event.target === picture && keys[event.key.length > 1 ? event.key : event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  });

  // A reader who scrolls through the page and meets the picture on the way scrolls on.
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

  // Across: page; up and down is the page's own scrolling.
  on(picture, "pointerdown", event => {
    if (event.button) return;
    drag = { x: event.clientX, at, steps: 0 };
    picture.setPointerCapture(event.pointerId);
  });
  on(picture, "pointermove", event => {
    if (!drag) return;
    const steps = trunc((event.clientX - drag.x) / max(4, picture.clientWidth / 2 / (last + 1)));
    if (steps !== drag.steps) page(drag.at + steps);
    drag.steps = steps;
  });
  for (const end of ["pointerup", "pointercancel"]) on(picture, end, () => { drag = null; });

  stop();
  reset();
  choose(views[0]);
}
