"use strict";
(() => {
  const root = document.documentElement;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);

  // Colours: the system's, or the reader's choice. A page opened from a disk may have no storage.
  const remembered = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("hardmine-theme", value);
      return localStorage.getItem("hardmine-theme");
    } catch { return null; }
  };
  const paint = (theme) => (theme === "light" || theme === "dark") ? root.dataset.theme = theme : delete root.dataset.theme;
  const themes = document.querySelector(".theme");
  themes.hidden = false;
  const asked = new URLSearchParams(location.search).get("theme") || remembered();
  for (const input of themes.querySelectorAll("input")) {
    input.checked = input.value === (asked || "auto");
    input.addEventListener("change", () => { paint(input.value); remembered(input.value); });
  }
  paint(asked);

  // Tables: a button in every head sorts by that column, numbers as numbers, a second press the other way.
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replaceAll("−", "-").replace(/[,+<\s]/g, ""));
    return [Number.isNaN(number) ? 1 : 0, Number.isNaN(number) ? text : number];
  };
  const compare = ([kind, one], [other, two]) => kind - other || (kind ? one.localeCompare(two) : one - two);
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((one, two) => compare(value(one, column), value(two, column)));
        body.append(...(down ? rows.reverse() : rows));
      });
    });
  }

  // Where the reader is.
  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main > section")) watch.observe(section);

  // Charts, one after another, so that the page answers while they are drawn.
  const { config, datasets, specs } = read("charts");
  const tables = Object.fromEntries(Object.entries(datasets).map(([name, { columns, rows }]) =>
    [name, rows.map((row) => Object.fromEntries(columns.map((column, index) => [column, row[index]])))]));
  const options = { renderer: "svg", mode: "vega-lite", actions: false, logLevel: 1, config,
    tooltip: { theme: "hm", disableDefaultStyle: true } };
  const draw = async () => {
    for (const plot of document.querySelectorAll(".plot")) {
      const spec = specs[plot.dataset.chart];
      try {
        await window.vegaEmbed(plot, spec.data?.name ? { ...spec, datasets: { [spec.data.name]: tables[spec.data.name] } } : spec, options);
      } catch (error) {
        console.error(`chart ${plot.dataset.chart}: ${error}`);
        plot.textContent = "This chart could not be drawn. The table below has its figures.";
      }
      await new Promise((done) => setTimeout(done));
    }
    root.dataset.charts = "drawn";
  };
  draw();
})();
