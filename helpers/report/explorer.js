"use strict";
// The explorer of mistakes and the two sliders. What their data mean stands in explorer.py. What is there without
// script is replaced by what is built here.

{
  const ANY = "any";
  const PAGE = 24; // pictures shown at a time

  // ---------------------------------------------------------------- shared by both

  function element(tag, attributes = {}, ...children) {
    const node = tag.startsWith("svg:")
      ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function select(title, options) {
    const field = element("select", {}, ...options.map((option) => element("option", {}, option)));
    return [field, element("label", {}, title, field)];
  }

  function slider(title, attributes) {
    const id = `${title.toLowerCase().replace(" ", "-")}-slider`;
    const field = element("input", { type: "range", id, ...attributes });
    const output = element("output", { for: id });
    return [field, output, element("div", { class: "slider" }, element("label", { for: id }, title), " ", output, field)];
  }

  const percent = (share) => (share >= 0.9995 ? ">99.9%" : `${(100 * share).toFixed(1)}%`);
  const count = (number) => number.toLocaleString("en-GB");

  // A part of the page whose state is kept in the address, as in #mistakes?network=ImprovedNet&true=cat.
  function linked(id, read) {
    function follow() {
      const [target, query] = location.hash.slice(1).split("?");
      if (target !== id || !query) return;
      read(new URLSearchParams(query));
      document.getElementById(id).scrollIntoView();
    }
    addEventListener("hashchange", follow);
    follow();
    return (state) => history.replaceState(null, "", `#${id}?${new URLSearchParams(state)}`);
  }

  function start(id, build) {
    const data = document.getElementById(`${id}-data`);
    if (data) build(document.getElementById(id), JSON.parse(data.textContent));
  }

  // ---------------------------------------------------------------- mistakes

  start("mistakes", (root, data) => {
    const { classes, labels, best, shares } = data;
    const networks = Object.keys(best);
    const [network, networkLabel] = select("Network", networks);
    const [actual, actualLabel] = select("True class", [ANY, ...classes]);
    const [predicted, predictedLabel] = select("Predicted class", [ANY, ...classes]);
    const [least, leastShown, leastLabel] = slider("Least confidence", { min: 0, max: 99, value: 0 });
    const status = element("p", { role: "status" });
    const pictures = element("ol", { class: "pictures" });
    const more = element("button", { type: "button" });
    let chosen = [];

    function wrong(name) {
      return labels.map((_, i) => i).filter((i) => best[name][i][0] !== labels[i] && shares[name][i][0] >= 10 * least.value);
    }

    // The confusion matrix: a button in each cell and at each class.
    const cells = [];

    function choose(i, j) {
      actual.value = i === null ? ANY : classes[i];
      predicted.value = j === null ? ANY : classes[j];
      changed();
    }

    function button(i, j, text = "") {
      const node = element("button", { type: "button", tabindex: -1 }, text);
      node.addEventListener("click", () => choose(i, j));
      cells.push({ node, i, j });
      return node;
    }

    const head = classes.map((name, j) => element("th", { scope: "col" }, button(null, j, name)));
    const body = classes.map((name, i) =>
      element("tr", {}, element("th", { scope: "row" }, button(i, null, name)),
        ...classes.map((_, j) => element("td", {}, i === j ? "" : button(i, j)))));
    const matrix = element("table", { class: "matrix" },
      element("thead", {}, element("tr", {}, element("td", {}, "true ↓ predicted →"), ...head)),
      element("tbody", {}, ...body));
    cells[0].node.tabIndex = 0; // one stop of the tab key; the arrow keys lead on
    matrix.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      let { parentNode: at } = event.target;
      do {
        at = matrix.rows[at.parentNode.rowIndex + step[0]]?.cells[at.cellIndex + step[1]];
      } while (at && !at.querySelector("button"));
      if (!at) return;
      event.target.tabIndex = -1;
      at.firstChild.tabIndex = 0;
      at.firstChild.focus();
    });

    function showMatrix() {
      const counts = classes.map(() => classes.map(() => 0));
      for (const i of wrong(network.value)) counts[labels[i]][best[network.value][i][0]]++;
      const most = Math.max(1, ...counts.flat());
      for (const { node, i, j } of cells) {
        const pressed = (i === null ? ANY : classes[i]) === actual.value && (j === null ? ANY : classes[j]) === predicted.value;
        node.setAttribute("aria-pressed", pressed);
        if (i === null || j === null) continue;
        node.textContent = counts[i][j] || "";
        node.setAttribute("aria-label", `${classes[i]} taken for ${classes[j]}: ${counts[i][j]}`);
        node.style.setProperty("--share", `${Math.round((100 * counts[i][j]) / most)}%`);
      }
    }

    function bars(name, i) {
      return element("ul", { class: "bars" }, ...best[name][i].map((k, place) => {
        const share = shares[name][i][place] / 1000;
        const right = k === labels[i];
        return element("li", { style: `--share: ${100 * share}%`, ...(right && { class: "right" }) },
          element("span", {}, right ? `${classes[k]} ✓` : classes[k]), element("span", {}, share ? percent(share) : "<0.1%"));
      }));
    }

    function picture(i) {
      const style = `--column: ${i % data.columns}; --row: ${Math.floor(i / data.columns)}`;
      const others = networks.filter((name) => name !== network.value).map((name) => {
        const [k, share] = [best[name][i][0], shares[name][i][0] / 1000];
        return element("p", {}, `${name}: ${classes[k]} ${percent(share)}${k === labels[i] ? " ✓" : ""}`);
      });
      return element("li", {},
        element("span", { class: "picture", role: "img", "aria-label": `Test image ${data.indices[i]}`, style }),
        element("p", { class: "true" }, `labelled ${classes[labels[i]]} `, element("small", {}, `#${data.indices[i]}`)),
        bars(network.value, i), ...others);
    }

    function showMore() {
      const shown = pictures.childElementCount;
      pictures.append(...chosen.slice(shown, shown + PAGE).map(picture));
      const left = chosen.length - pictures.childElementCount;
      more.hidden = left === 0;
      more.textContent = `Show ${Math.min(PAGE, left)} more of ${count(left)}`;
    }

    function show() {
      const name = network.value;
      leastShown.textContent = `${least.value}%`;
      chosen = wrong(name)
        .filter((i) => [ANY, classes[labels[i]]].includes(actual.value))
        .filter((i) => [ANY, classes[best[name][i][0]]].includes(predicted.value))
        .sort((a, b) => shares[name][b][0] - shares[name][a][0]);
      status.textContent = `${count(chosen.length)} ${chosen.length === 1 ? "mistake" : "mistakes"} of ${name}` +
        (actual.value === ANY ? "" : `, ${actual.value}`) +
        (predicted.value === ANY ? "" : ` taken for ${predicted.value}`) +
        (least.value === "0" ? "" : `, confidence at least ${least.value}%`) + ", the most confident first.";
      pictures.replaceChildren();
      showMatrix();
      showMore();
    }

    const keep = linked("mistakes", (query) => {
      const known = (field, value) => ([...field.options].some((option) => option.value === value) ? value : field.options[0].value);
      network.value = known(network, query.get("network"));
      actual.value = known(actual, query.get("true"));
      predicted.value = known(predicted, query.get("predicted"));
      least.value = Number(query.get("least")) || 0;
      show();
    });

    function changed() {
      show();
      keep({ network: network.value, true: actual.value, predicted: predicted.value, least: least.value });
    }

    [network, actual, predicted, least].forEach((field) => field.addEventListener("input", changed));
    more.addEventListener("click", showMore);
    root.replaceChildren(
      element("div", { class: "controls" }, networkLabel, actualLabel, predictedLabel, leastLabel),
      matrix, status, pictures, more);
    show();
  });

  // ---------------------------------------------------------------- temperature

  const BINS = 15; // as in metrics.py
  const FEW = 20; // images: a bin of fewer is not drawn

  async function unpacked(text, images, [logitSteps, lagSteps, lagScale]) {
    const deflated = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = await new Response(stream).arrayBuffer();
    const right = new Uint8Array(bytes, 2 * images, images);
    const lags = new Uint8Array(bytes, 3 * images);
    const others = lags.length / images;
    const rivals = new Float64Array(lags.length);
    const leads = new Float64Array(images);
    const view = new DataView(bytes);
    for (let i = 0, logit = 0; i < images; i++) {
      logit += view.getInt16(2 * i, true);
      let sum = 1;
      for (let k = 0, steps = 0; k < others; k++) {
        steps += lags[k * images + i];
        rivals[i * others + k] = -lagScale * Math.log1p(-steps / lagSteps);
        sum += Math.exp(-rivals[i * others + k]);
      }
      leads[i] = logit / logitSteps + Math.log(sum);
    }
    function confidences(temperature) {
      return leads.map((lead, i) => {
        let sum = 1;
        for (let k = i * others; k < (i + 1) * others; k++) sum += Math.exp(-rivals[k] / temperature);
        return 1 / (1 + Math.exp(-lead / temperature) * sum);
      });
    }
    return { right, confidences };
  }

  // How many numbers of a list in ascending order exceed a limit.
  function beyond(sorted, limit) {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] <= limit) low = middle + 1;
      else high = middle;
    }
    return sorted.length - low;
  }

  // What the table and the charts show of one network, from confidences and whether they are right.
  function measured(confidence, right) {
    const bins = Array.from({ length: BINS }, () => ({ count: 0, confidence: 0, right: 0 }));
    confidence.forEach((share, i) => {
      const bin = bins[Math.max(0, Math.ceil(share * BINS) - 1)]; // (lower, upper]
      bin.count++;
      bin.confidence += share;
      bin.right += right[i];
    });
    const sorted = confidence.toSorted();
    const mistaken = confidence.filter((_, i) => !right[i]).sort();
    const above = (threshold) => ({ answered: beyond(sorted, threshold), wrong: beyond(mistaken, threshold) });
    const n = sorted.length;
    const places = Array.from({ length: 200 }, (_, i) => Math.ceil(((i + 1) * n) / 200)); // images answered
    return {
      above,
      ece: bins.reduce((sum, bin) => sum + Math.abs(bin.right - bin.confidence), 0) / n,
      gaps: bins.filter((bin) => bin.count >= FEW).map((bin) => [bin.confidence / bin.count, (bin.right - bin.confidence) / bin.count]),
      risks: places.map((answered) => [answered / n, beyond(mistaken, sorted[n - answered - 1] ?? 0) / answered]),
    };
  }

  // A small chart of lines. x and y say how: {title, low, high, ticks, text, scale}; series are drawn by `draw`.
  function chart(title, x) {
    const [left, right, top, bottom, width, height] = [44, 12, 8, 38, 320, 230];
    const svg = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const line = (x1, y1, x2, y2, style) => element("svg:line", { x1, y1, x2, y2, class: style });
    const text = (x, y, words, anchor) => element("svg:text", { x, y, "text-anchor": anchor }, words);
    const place = (axis, value) => (axis.scale(value) - axis.scale(axis.low)) / (axis.scale(axis.high) - axis.scale(axis.low));

    function draw(y, series, threshold, message) {
      const across = (value) => left + place(x, value) * (width - left - right);
      const up = (value) => height - bottom - place(y, value) * (height - top - bottom);
      const axes = [
        ...y.ticks.flatMap((tick) => [line(left, up(tick), width - right, up(tick), tick === 0 ? "zero" : ""), text(left - 5, up(tick) + 4, y.text(tick), "end")]),
        ...x.ticks.map((tick) => text(across(tick), height - bottom + 15, x.text(tick), "middle")),
        text((left + width - right) / 2, height - 4, x.title, "middle"),
      ];
      if (threshold >= x.low) axes.push(line(across(threshold), top, across(threshold), height - bottom, "threshold"));
      svg.replaceChildren(...axes, ...series.map(({ colour, values, dots }, i) =>
        element("svg:g", { class: `series s${i}`, style: `--colour: ${colour}` },
          element("svg:path", { d: values.map(([a, b], k) => `${k ? "L" : "M"}${across(a).toFixed(1)} ${up(b).toFixed(1)}`).join("") }),
          ...dots.map(([a, b]) => element("svg:circle", { cx: across(a), cy: up(b), r: 3.5 })))));
      svg.setAttribute("aria-label", `${title}. ${message}`);
    }

    return { draw, node: element("figure", {}, element("figcaption", {}, title), svg) };
  }

  start("temperature", async (root, data) => {
    const networks = Object.entries(data.networks);
    const stored = await Promise.all(networks.map(([, { packed }]) => unpacked(packed, data.images, data.steps)));
    const [temperature, temperatureShown, temperatureLabel] = slider("Temperature", { min: -1, max: 1, step: 0.01, value: 0 });
    const [threshold, thresholdShown, thresholdLabel] = slider("Threshold", { min: 0.5, max: 0.995, step: 0.005, value: data.threshold });
    const asTrained = element("button", { type: "button" }, "as trained, T = 1");
    const eachOwn = element("button", { type: "button" }, "each at its own temperature");
    const head = networks.map(([name, { colour }], i) => element("th", { scope: "col" },
      element("svg:svg", { viewBox: "0 0 24 8", "aria-hidden": "true", class: `series s${i}`, style: `--colour: ${colour}` },
        element("svg:path", { d: "M0 4H24" })), name));
    const rows = ["temperature", "ECE", "answered", "wrong answers", "error rate"].map((title) =>
      element("tr", {}, element("th", { scope: "row" }, title), ...networks.map(() => element("td"))));
    const table = element("table", {}, element("thead", {}, element("tr", {}, element("td"), ...head)), element("tbody", {}, ...rows));
    const share = { text: (tick) => `${Math.round(100 * tick)}%`, scale: (value) => value };
    const gaps = chart("Accuracy minus confidence, in points", { title: "confidence", low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1], ...share });
    const sure = chart("Wrong answers above a threshold", { title: "threshold", low: 0.5, high: 1, ticks: [0.5, 0.6, 0.7, 0.8, 0.9, 1], ...share });
    const risk = chart("Error rate among the images answered", { title: "share of images answered", low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1], ...share });
    let own = false; // each network at the temperature fitted for it

    function show() {
      const common = 2 ** temperature.value;
      const limit = Number(threshold.value);
      temperatureShown.textContent = own ? "each its own" : common.toFixed(2);
      temperature.setAttribute("aria-valuetext", temperatureShown.textContent);
      thresholdShown.textContent = limit.toFixed(3);
      asTrained.setAttribute("aria-pressed", !own && common === 1);
      eachOwn.setAttribute("aria-pressed", own);
      const series = networks.map(([name, { colour, temperature: fitted }], i) => {
        const T = own ? fitted : common;
        const found = measured(stored[i].confidences(T), stored[i].right);
        return { name, colour, T, ...found, at: found.above(limit) };
      });
      series.forEach(({ T, ece, at }, i) => {
        const rate = at.answered ? percent(at.wrong / at.answered) : "–";
        const texts = [T.toFixed(2), ece.toFixed(3), percent(at.answered / data.images), count(at.wrong), rate];
        texts.forEach((text, k) => { rows[k].cells[i + 1].textContent = text; });
      });

      const said = (text) => series.map((each) => `${each.name}: ${text(each)}`).join("; ");
      const largest = Math.max(...series.flatMap(({ gaps }) => gaps.map(([, gap]) => Math.abs(gap))));
      const high = [0.1, 0.2, 0.5].find((size) => size >= largest) ?? 1;
      const points = { low: -high, high, ticks: [-high, -high / 2, 0, high / 2, high], scale: share.scale, text: (tick) => `${tick > 0 ? "+" : tick < 0 ? "−" : ""}${Math.round(Math.abs(100 * tick))}` };
      gaps.draw(points, series.map((each) => ({ ...each, values: each.gaps, dots: each.gaps })), limit,
        `Below zero a network is over-confident. ECE of ${said(({ ece }) => ece.toFixed(3))}.`);

      const thresholds = Array.from({ length: 100 }, (_, i) => 0.5 + i / 200);
      const counted = series.map((each) => ({ ...each, dots: [[limit, Math.max(1, each.at.wrong)]],
        values: thresholds.map((t) => [t, each.above(t).wrong]).filter(([, wrong]) => wrong) }));
      sure.draw({ low: 1, high: data.images / 3, ticks: [1, 10, 100, 1000].filter((tick) => tick < data.images / 3), text: count, scale: Math.log }, counted, limit,
        `Above ${limit}, ${said(({ at }) => count(at.wrong))}.`);

      const answered = series.map((each) => ({ ...each, values: each.risks,
        dots: each.at.answered ? [[each.at.answered / data.images, each.at.wrong / each.at.answered]] : [] }));
      const top = Math.max(...series.flatMap(({ risks }) => risks.map(([, rate]) => rate)), 0.01);
      const step = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((size) => 5 * size >= top) ?? 0.5;
      const ticks = [0, 1, 2, 3, 4, 5].map((i) => i * step).filter((tick) => tick < top + step);
      risk.draw({ low: 0, high: ticks.at(-1), ticks, text: (tick) => `${+(100 * tick).toFixed(1)}%`, scale: share.scale }, answered, NaN,
        `Above ${limit}, ${said(({ at }) => `${percent(at.answered / data.images)} answered`)}.`);
    }

    const keep = linked("temperature", (query) => {
      own = query.get("T") === "own";
      temperature.value = own ? 0 : Math.log2(Number(query.get("T")) || 1);
      threshold.value = Number(query.get("threshold")) || data.threshold;
      show();
    });

    function changed() {
      show();
      keep({ T: own ? "own" : (2 ** temperature.value).toFixed(3), threshold: threshold.value });
    }

    function set(each) {
      own = each;
      temperature.value = 0;
      changed();
    }

    temperature.addEventListener("input", () => { own = false; changed(); });
    threshold.addEventListener("input", changed);
    asTrained.addEventListener("click", () => set(false));
    eachOwn.addEventListener("click", () => set(true));
    root.replaceChildren(
      element("div", { class: "controls" }, temperatureLabel, element("div", { class: "presets" }, asTrained, eachOwn), thresholdLabel),
      element("div", { class: "charts" }, table, gaps.node, sure.node, risk.node));
    show();
  });
}
