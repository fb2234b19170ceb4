"use strict";
// Sorts and filters the case table. Missing values stay last in both directions.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const value = (row, i) => {
    const exact = row.cells[i].dataset.v;
    if (exact === undefined) return row.cells[i].textContent.toLowerCase();
    return exact === "" ? null : Number(exact);
  };
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [value(row, i), row]);
    rows.sort(([a], [b]) => (a === null || b === null) ? (a === null) - (b === null) : (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1));
    body.append(...rows.map(([, row]) => row));
  }));
  const filter = document.querySelector(".filter");
  filter.hidden = false;
  filter.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    filter.querySelector("[role=status]").textContent = wanted ? `${shown} of ${body.rows.length}` : "";
  });
}
