"use strict";
// All images that a network gets wrong, found by the confusion matrix or by the fields above it.

start("mistakes", (root, { classes, names, indices, labels, best, shares, columns }) => {
  const ANY = "any";
  const PAGE = 24; // images shown at a time
  const [network, networkLabel] = select("Network", names);
  const [actual, actualLabel] = select("True class", [ANY, ...classes]);
  const [predicted, predictedLabel] = select("Predicted class", [ANY, ...classes]);
  const [least, leastShown, leastLabel] = slider("Least confidence", { min: 0, max: 99, value: 0 });
  const status = element("p", { role: "status" });
  const pictures = element("ol", { class: "pictures" });
  const more = element("button", { type: "button" });
  let chosen = [];

  // The confusion matrix: a button at each class and in each cell off the diagonal, {node, true, predicted}.
  const cells = [];

  function cell(names, text = "") {
    const node = toggle(text, { tabindex: -1 });
    node.addEventListener("click", () => {
      const on = node.getAttribute("aria-pressed") === "false";
      actual.value = on ? names.true : ANY;
      predicted.value = on ? names.predicted : ANY;
      changed();
    });
    cells.push({ node, ...names });
    return node;
  }

  const head = classes.map((name) => element("th", { scope: "col" }, cell({ true: ANY, predicted: name }, name)));
  const rows = classes.map((name) => {
    const counts = classes.map((other) =>
      element("td", {}, name === other ? "" : cell({ true: name, predicted: other })));
    return element("tr", {}, element("th", { scope: "row" }, cell({ true: name, predicted: ANY }, name)), ...counts);
  });
  const matrix = element("table", { class: "matrix" },
    element("thead", {}, element("tr", {}, element("td", {}, "true ↓ predicted →"), ...head)),
    element("tbody", {}, ...rows));

  cells[0].node.tabIndex = 0; // one stop of the tab key; the arrow keys lead on
  matrix.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!steps) return;
    event.preventDefault();
    let at = event.target.parentNode;
    do at = matrix.rows[at.parentNode.rowIndex + steps[0]]?.cells[at.cellIndex + steps[1]];
    while (at && !at.querySelector("button"));
    if (!at) return;
    event.target.tabIndex = -1;
    at.firstChild.tabIndex = 0;
    at.firstChild.focus();
  });

  function showMatrix(wrong) {
    const counts = {};
    for (const i of wrong) {
      const pair = [classes[labels[i]], classes[best[network.value][i][0]]];
      counts[pair] = (counts[pair] ?? 0) + 1;
    }
    const most = Math.max(1, ...Object.values(counts));
    for (const { node, ...names } of cells) {
      node.setAttribute("aria-pressed", names.true === actual.value && names.predicted === predicted.value);
      if (names.true === ANY || names.predicted === ANY) continue;
      const number = counts[[names.true, names.predicted]] ?? 0;
      node.textContent = number || "";
      node.setAttribute("aria-label", `${names.true} taken for ${names.predicted}: ${number}`);
      node.style.setProperty("--share", `${Math.round((100 * number) / most)}%`);
    }
  }

  function bar(i, k, share) {
    const right = k === labels[i];
    return element("li", { style: `--share: ${share / 10}%`, class: right ? "right" : "" },
      element("span", {}, right ? `${classes[k]} ✓` : classes[k]),
      element("span", {}, share ? percent(share / 1000) : "<0.1%"));
  }

  function picture(i) {
    const style = `--column: ${i % columns}; --row: ${Math.floor(i / columns)}`;
    const three = best[network.value][i].map((k, place) => bar(i, k, shares[network.value][i][place]));
    const others = names.filter((name) => name !== network.value).map((name) => {
      const k = best[name][i][0];
      const tick = k === labels[i] ? " ✓" : "";
      return element("p", {}, `${name}: ${classes[k]} ${percent(shares[name][i][0] / 1000)}${tick}`);
    });
    return element("li", {},
      element("span", { class: "picture", role: "img", "aria-label": `Test image ${indices[i]}`, style }),
      element("p", { class: "true" }, `labelled ${classes[labels[i]]} `, element("small", {}, `#${indices[i]}`)),
      element("ul", { class: "bars" }, ...three), ...others);
  }

  function showMore() {
    const shown = pictures.childElementCount;
    pictures.append(...chosen.slice(shown, shown + PAGE).map(picture));
    const left = chosen.length - pictures.childElementCount;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(PAGE, left)} more of ${count(left)}`;
  }

  function show() {
    const [answers, confidence] = [best[network.value], shares[network.value]];
    const wrong = [...labels.keys()].filter(
      (i) => answers[i][0] !== labels[i] && confidence[i][0] >= 10 * least.value);
    chosen = wrong
      .filter((i) => [ANY, classes[labels[i]]].includes(actual.value))
      .filter((i) => [ANY, classes[answers[i][0]]].includes(predicted.value))
      .sort((a, b) => confidence[b][0] - confidence[a][0]);
    leastShown.textContent = `${least.value}%`;
    status.textContent = [
      `${count(chosen.length)} ${chosen.length === 1 ? "mistake" : "mistakes"} of ${network.value}`,
      ...(actual.value === ANY ? [] : [`true class ${actual.value}`]),
      ...(predicted.value === ANY ? [] : [`taken for ${predicted.value}`]),
      "the most confident first.",
    ].join(", ");
    showMatrix(wrong);
    pictures.replaceChildren();
    showMore();
  }

  const keep = linked("mistakes", (query) => {
    for (const [field, name] of [[network, "network"], [actual, "true"], [predicted, "predicted"]]) {
      field.value = query.get(name);
      if (field.selectedIndex < 0) field.selectedIndex = 0; // what is missing or unknown
    }
    least.value = Number(query.get("least")) || 0;
    show();
  });

  function changed() {
    show();
    keep({ network: network.value, true: actual.value, predicted: predicted.value, least: least.value });
  }

  [network, actual, predicted, least].forEach((field) => field.addEventListener("input", changed));
  more.addEventListener("click", showMore);
  const fields = element("div", { class: "controls" }, networkLabel, actualLabel, predictedLabel, leastLabel);
  root.replaceChildren(fields, matrix, status, pictures, more);
  show();
});
