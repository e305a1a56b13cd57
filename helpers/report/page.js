"use strict";
// What the page does beside being read: its contents open where they stand beside the text and mark the section that
// is read, and the arrow keys reach whatever scrolls sideways.

{
  const contents = document.querySelector("#contents");
  const beside = matchMedia("(min-width: 72rem)"); // as in style.css
  const links = [...contents.querySelectorAll("a")];
  const headings = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));

  function arrange() {
    contents.classList.toggle("beside", beside.matches);
    contents.firstElementChild.open = beside.matches;
  }

  function mark() {
    const read = headings.findLastIndex((heading) => heading.getBoundingClientRect().top < innerHeight / 4);
    const marked = contents.querySelector("[aria-current]");
    if (links[read] === marked) return;
    marked?.removeAttribute("aria-current");
    links[read]?.setAttribute("aria-current", "true");
    if (beside.matches) links[read]?.scrollIntoView({ block: "nearest" });
  }

  beside.addEventListener("change", arrange);
  addEventListener("scroll", mark, { passive: true });
  contents.addEventListener("click", (event) => {
    if (event.target.closest("a") && !beside.matches) contents.firstElementChild.open = false;
  });
  arrange();
  mark();

  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  document.querySelectorAll(".scroll, pre, .equation p, math[display=block]").forEach((box) => sized.observe(box));
}
