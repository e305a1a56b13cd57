"use strict";
// What mistakes.js and temperature.js share. Their data are made by explorer.py; what the page shows without script
// gives way to what they build.

function element(tag, attributes = {}, ...children) {
  const drawn = ["svg", "g", "path", "line", "circle", "text"].includes(tag);
  const node = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
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
  const shown = element("output", { for: id });
  return [field, shown, element("div", { class: "slider" }, element("label", { for: id }, title), " ", shown, field)];
}

function toggle(text, attributes = {}) {
  return element("button", { type: "button", "aria-pressed": false, ...attributes }, text);
}

const percent = (share) => (share >= 0.9995 ? ">99.9%" : `${(100 * share).toFixed(1)}%`);
const count = (number) => number.toLocaleString("en-GB");

// Call `build` with the part of the page that has this id, and its data.
function start(id, build) {
  const data = document.getElementById(`${id}-data`);
  if (data) build(document.getElementById(id), JSON.parse(data.textContent));
}

// Keep the state of a part in the address, as in #mistakes?network=ImprovedNet&true=cat, and follow such an address by
// `read`. Returns what puts a state there.
function linked(id, read) {
  function follow() {
    const [target, query] = location.hash.slice(1).split("?");
    if (target !== id || !query) return;
    read(new URLSearchParams(query));
    document.getElementById(id).scrollIntoView();
  }
  addEventListener("hashchange", follow);
  addEventListener("load", follow); // when the images above have their heights
  follow();
  return (state) => history.replaceState(null, "", `#${id}?${new URLSearchParams(state)}`);
}
