"use strict";
// Calibration, confident mistakes and coverage, computed anew for every temperature and threshold.

start("temperature", async (root, data) => {
  const BINS = 15; // as in metrics.py
  const FEW = 20; // images: a bin of fewer is not drawn

  // What explorer.py has packed: whether each image is right, and its confidence at any temperature.
  async function unpacked(text) {
    const [logitSteps, lagSteps, lagScale] = data.steps;
    const n = data.images;
    const deflated = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = await new Response(stream).arrayBuffer();
    const [logits, right, steps] = [new DataView(bytes), new Uint8Array(bytes, 2 * n, n), new Uint8Array(bytes, 3 * n)];
    const others = steps.length / n;
    const lags = new Float64Array(steps.length); // of image i at i * others
    const leads = new Float64Array(n);
    const rivals = (i, temperature) => {
      let sum = 1;
      for (let k = i * others; k < (i + 1) * others; k++) sum += Math.exp(-lags[k] / temperature);
      return sum;
    };
    for (let i = 0, logit = 0; i < n; i++) {
      logit += logits.getInt16(2 * i, true);
      for (let k = 0, step = 0; k < others; k++) {
        step += steps[k * n + i];
        lags[i * others + k] = -lagScale * Math.log1p(-step / lagSteps);
      }
      leads[i] = logit / logitSteps + Math.log(rivals(i, 1));
    }
    const confidences = (T) => leads.map((lead, i) => 1 / (1 + Math.exp(-lead / T) * rivals(i, T)));
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

  // What the table and the charts show of one network.
  function measured(confidence, right) {
    const bins = Array.from({ length: BINS }, () => ({ count: 0, confidence: 0, right: 0 }));
    confidence.forEach((share, i) => {
      const bin = bins[Math.max(0, Math.ceil(share * BINS) - 1)]; // (lower, upper]
      bin.count++;
      bin.confidence += share;
      bin.right += right[i];
    });
    const gap = (bin) => bin.right - bin.confidence;
    const n = confidence.length;
    const sorted = confidence.toSorted();
    const mistaken = confidence.filter((_, i) => !right[i]).sort();
    const risk = (answered) => beyond(mistaken, sorted[n - answered - 1] ?? 0) / answered;
    return {
      above: (threshold) => ({ answered: beyond(sorted, threshold), wrong: beyond(mistaken, threshold) }),
      ece: bins.reduce((sum, bin) => sum + Math.abs(gap(bin)), 0) / n,
      gaps: bins.filter((bin) => bin.count >= FEW).map((bin) => [bin.confidence / bin.count, gap(bin) / bin.count]),
      risks: Array.from({ length: 200 }, (_, i) => Math.ceil(((i + 1) * n) / 200)).map((m) => [m / n, risk(m)]),
    };
  }

  const line = (i, colour, ...drawn) => element("g", { class: `series s${i}`, style: `--colour: ${colour}` }, ...drawn);
  const path = (points) => element("path", { d: points.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("") });

  // A small chart. x and y: {title, low, high, ticks, text, scale}. series: {colour, points, dots} of each network.
  function chart(message, x, y, series, threshold) {
    const [left, right, top, bottom] = [44, 308, 8, 192];
    const part = ({ low, high, scale = (v) => v }, value) => (scale(value) - scale(low)) / (scale(high) - scale(low));
    const across = (value) => +(left + part(x, value) * (right - left)).toFixed(1);
    const up = (value) => +(bottom - part(y, value) * (bottom - top)).toFixed(1);
    const text = (words, x, y, anchor) => element("text", { x, y, "text-anchor": anchor }, words);
    const rule = (x1, y1, x2, y2, style) => element("line", { x1, y1, x2, y2, class: style });
    return element("svg", { viewBox: "0 0 320 230", role: "img", "aria-label": message },
      ...y.ticks.map((tick) => rule(left, up(tick), right, up(tick), tick === 0 ? "zero" : "")),
      ...y.ticks.map((tick) => text(y.text(tick), left - 5, up(tick) + 4, "end")),
      ...x.ticks.map((tick) => text(x.text(tick), across(tick), bottom + 15, "middle")),
      text(x.title, (left + right) / 2, 226, "middle"),
      ...(threshold >= x.low ? [rule(across(threshold), top, across(threshold), bottom, "threshold")] : []),
      ...series.map(({ colour, points, dots }, i) => line(i, colour,
        path(points.map(([a, b]) => [across(a), up(b)])),
        ...dots.map(([a, b]) => element("circle", { cx: across(a), cy: up(b), r: 3.5 })))));
  }

  const networks = data.names.map((name) => [name, data.networks[name]]);
  const stored = await Promise.all(networks.map(([, { packed }]) => unpacked(packed)));
  const [exponent, temperatureShown, temperatureLabel] =
    slider("Temperature", { min: -1.5, max: 1, step: 0.01, value: 0 }); // powers of 2
  const [threshold, thresholdShown, thresholdLabel] =
    slider("Threshold", { min: 0.5, max: 0.995, step: 0.005, value: data.threshold });
  const asTrained = toggle("as trained, T = 1");
  const eachOwn = toggle("each at its own temperature");
  let own = false; // each network at the temperature that was fitted for it

  const head = networks.map(([name, { colour }], i) => {
    const sample = line(i, colour, path([[0, 4], [24, 4]]));
    return element("th", { scope: "col" }, element("svg", { viewBox: "0 0 24 8", "aria-hidden": true }, sample), name);
  });
  const rows = ["temperature", "ECE", "answered", "wrong answers", "error rate"].map((title) =>
    element("tr", {}, element("th", { scope: "row" }, title), ...networks.map(() => element("td"))));
  const table = element("table", {},
    element("thead", {}, element("tr", {}, element("td"), ...head)), element("tbody", {}, ...rows));
  const titles = [
    "Accuracy minus confidence, in points", "Wrong answers above a threshold", "Error rate among the images answered"];
  const figures = titles.map((title) => element("figure", {}, element("figcaption", {}, title), element("div")));

  const shares = (low, step, title) => ({
    title, low, high: 1, text: (tick) => `${Math.round(100 * tick)}%`,
    ticks: Array.from({ length: Math.round((1 - low) / step) + 1 }, (_, i) => low + i * step),
  });

  function show() {
    const common = 2 ** exponent.value;
    const limit = Number(threshold.value);
    temperatureShown.textContent = own ? "each its own" : common.toFixed(2);
    exponent.setAttribute("aria-valuetext", temperatureShown.textContent);
    thresholdShown.textContent = limit.toFixed(3);
    asTrained.setAttribute("aria-pressed", !own && common === 1);
    eachOwn.setAttribute("aria-pressed", own);
    const series = networks.map(([name, { colour, temperature }], i) => {
      const T = own ? temperature : common;
      const found = measured(stored[i].confidences(T), stored[i].right);
      return { name, colour, T, ...found, at: found.above(limit) };
    });
    series.forEach(({ T, ece, at: { answered, wrong } }, i) => {
      const rate = answered ? percent(wrong / answered) : "–";
      const texts = [T.toFixed(2), ece.toFixed(3), percent(answered / data.images), count(wrong), rate];
      texts.forEach((text, k) => { rows[k].cells[i + 1].textContent = text; });
    });
    const said = (text) => `${series.map((each) => `${each.name}: ${text(each)}`).join("; ")}.`;

    const largest = Math.max(...series.flatMap(({ gaps }) => gaps.map(([, gap]) => Math.abs(gap))));
    const high = [0.1, 0.2, 0.5].find((size) => size >= largest) ?? 1;
    const points = (tick) => `${tick > 0 ? "+" : tick < 0 ? "−" : ""}${Math.round(Math.abs(100 * tick))}`;
    const calibration = chart(
      `Below zero a network is over-confident. ECE of ${said(({ ece }) => ece.toFixed(3))}`,
      shares(0, 0.25, "confidence"),
      { low: -high, high, ticks: [-high, -high / 2, 0, high / 2, high], text: points },
      series.map(({ colour, gaps }) => ({ colour, points: gaps, dots: gaps })), limit);

    const most = Math.max(10, data.images / 3);
    const counted = ({ colour, above, at }) => ({
      colour, dots: at.wrong ? [[limit, at.wrong]] : [],
      points: Array.from({ length: 100 }, (_, i) => 0.5 + i / 200)
        .map((share) => [share, above(share).wrong]).filter(([, wrong]) => wrong),
    });
    const confident = chart(
      `Wrong answers above ${limit} of ${said(({ at }) => count(at.wrong))}`,
      shares(0.5, 0.1, "threshold"),
      { low: 1, high: most, ticks: [1, 10, 100, 1000].filter((tick) => tick <= most), text: count, scale: Math.log },
      series.map(counted), limit);

    const top = Math.max(0.01, ...series.flatMap(({ risks }) => risks.map(([, risk]) => risk)));
    const step = [0.005, 0.01, 0.02, 0.05, 0.1].find((size) => 5 * size >= top) ?? 0.2;
    const ticks = Array.from({ length: Math.ceil(top / step) + 1 }, (_, i) => i * step);
    const answers = ({ colour, risks, at }) => ({
      colour, points: risks, dots: at.answered ? [[at.answered / data.images, at.wrong / at.answered]] : [],
    });
    const coverage = chart(
      `Answered above ${limit} by ${said(({ at }) => percent(at.answered / data.images))}`,
      shares(0, 0.25, "share of images answered"),
      { low: 0, high: ticks.at(-1), ticks, text: (tick) => `${+(100 * tick).toFixed(1)}%` },
      series.map(answers));

    [calibration, confident, coverage].forEach((svg, i) => figures[i].lastChild.replaceChildren(svg));
  }

  const keep = linked("temperature", (query) => {
    own = query.get("T") === "own";
    exponent.value = own ? 0 : Math.log2(Number(query.get("T")) || 1);
    threshold.value = Number(query.get("threshold")) || data.threshold;
    show();
  });

  function changed() {
    show();
    keep({ T: own ? "own" : (2 ** exponent.value).toFixed(3), threshold: threshold.value });
  }

  function set(each) {
    own = each;
    exponent.value = 0;
    changed();
  }

  exponent.addEventListener("input", () => {
    own = false;
    changed();
  });
  threshold.addEventListener("input", changed);
  asTrained.addEventListener("click", () => set(false));
  eachOwn.addEventListener("click", () => set(true));
  const presets = element("div", { class: "presets" }, asTrained, eachOwn);
  root.replaceChildren(
    element("div", { class: "controls" }, temperatureLabel, presets, thresholdLabel),
    element("div", { class: "charts" }, table, ...figures));
  show();
});
