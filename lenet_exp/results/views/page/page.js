"use strict";
// Each part stands alone: what fails in one is told on the console, and the others work.
const part = (name, work) => (...given) => {
  try { return work(...given); } catch (error) { console.error(`${name}:`, error); }
};
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// Figures: those in view are drawn first, then all others one by one, in the colours of the page.

part("figures", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // A finger moves the page and not the figure, and has nothing to hover with.
  const hasPointer = matchMedia("(hover: hover) and (min-width: 600px)").matches;
  const config = {
    displaylogo: false,
    responsive: true,
    displayModeBar: hasPointer ? "hover" : false,
    // Only these: one of plotly's other buttons uploads the data.
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };
  // A4 less its margins, in CSS pixels.
  const printed = 690;
  let isPrinting = false;
  const drawn = new Map();

  const colours = () => {
    const isDark = dark.matches && !isPrinting;
    const [text, line] = isDark ? ["#d5dde5", "#36424e"] : ["#33404d", "#dde3e8"];
    return { text, line, paper: isDark ? "#1c2630" : "#ffffff" };
  };
  const axes = (layout) => Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
  const themed = (layout) => {
    const { text, line, paper } = colours();
    const changes = {
      "font.color": text, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": text, "modebar.activecolor": text,
      "hoverlabel.bgcolor": paper, "hoverlabel.font.color": text, "hoverlabel.bordercolor": text,
    };
    for (const axis of axes(layout)) {
      for (const kind of ["gridcolor", "zerolinecolor", "linecolor"]) changes[`${axis}.${kind}`] = line;
    }
    return changes;
  };
  const put = (layout, changes) => {
    for (const [path, value] of Object.entries(changes)) {
      const keys = path.split(".");
      const last = keys.pop();
      let at = layout;
      for (const key of keys) at = at[key] ??= {};
      at[last] = value;
    }
    return layout;
  };
  const draw = (plot) => {
    if (drawn.has(plot)) return;
    drawn.set(plot, null);
    try {
      const spec = JSON.parse(plot.parentElement.querySelector("script").textContent);
      const layout = put(spec.layout, themed(spec.layout));
      if (!hasPointer) layout.dragmode = false;
      layout.font = { family: "system-ui, sans-serif", size: 12, ...layout.font };
      drawn.set(plot, spec.layout);
      Plotly.newPlot(plot, spec.data, layout, config);
    } catch (error) {
      plot.classList.add("undrawn");
      drawn.delete(plot);
      console.error("figure:", error);
    }
  };
  const recolour = part("colours", () => {
    for (const [plot, layout] of drawn) if (layout) Plotly.relayout(plot, themed(layout));
  });
  const plots = [...document.querySelectorAll("div.plot")];
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { observer.unobserve(entry.target); draw(entry.target); }
    }
  }, { rootMargin: "300px" });
  plots.forEach((plot) => observer.observe(plot));
  // A picture of the page, or another program's printing of it, has figures that were never in view.
  const undrawn = [...plots];
  const whenIdle = window.requestIdleCallback ?? ((work) => setTimeout(work, 30));
  const drawNext = () => {
    const plot = undrawn.shift();
    if (!plot) return;
    draw(plot);
    whenIdle(drawNext);
  };
  addEventListener("load", () => whenIdle(drawNext));

  dark.addEventListener("change", recolour);
  const toPrint = part("print", () => {
    if (isPrinting) return;
    isPrinting = true;
    plots.forEach(draw);
    for (const [plot, layout] of drawn) {
      if (!layout) continue;
      const most = getComputedStyle(plot.closest(".panels")).getPropertyValue("--columns");
      const columns = Math.min(Number(most) || 1, 2);
      Plotly.relayout(plot, { ...themed(layout), autosize: false, width: (printed - 22 * (columns - 1)) / columns });
    }
  });
  const fromPrint = part("print", () => {
    isPrinting = false;
    for (const [plot, layout] of drawn) {
      if (layout) Plotly.relayout(plot, { ...themed(layout), width: null, autosize: true });
    }
  });
  addEventListener("beforeprint", toPrint);
  addEventListener("afterprint", fromPrint);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? toPrint() : fromPrint()));
})();

// Tables: sorted by a click on a column's head, filtered, and unfolded row by row.

const number = (text) => Number.parseFloat(text.replaceAll(",", ""));

const sortable = part("sorting", (table) => {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", part("sorting", () => {
      body.querySelectorAll("tr.unfold").forEach((row) => fold(row.previousElementSibling));
      const isNumeric = head.classList.contains("n");
      const first = isNumeric && heads[column].textContent !== "rank" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.ariaSort === first ? other : first;
      heads.forEach((each) => { each.ariaSort = each === head ? order : "none"; });
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].map((row) => {
        const text = row.cells[column].textContent.trim();
        return { row, text, value: isNumeric ? number(text) : text };
      });
      // What has no value stands last, whatever the order.
      rows.sort((a, b) => (a.text === "") - (b.text === "") || sign * (isNumeric
        ? (a.value - b.value || 0) : a.value.localeCompare(b.value, undefined, { numeric: true })));
      body.append(...rows.map(({ row }) => row));
    }));
  });
});

const filterable = part("filter", (controls, table) => {
  controls.hidden = false;
  const [search, state, told] = ["input", "select", "output"].map((tag) => controls.querySelector(tag));
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent.toLowerCase()).join("\n"));
  const filter = part("filter", () => {
    const words = search.value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      const fits = words.every((word) => texts[i].includes(word))
        && (!state.value || row.dataset.state === state.value);
      if (!fits) fold(row);
      row.hidden = !fits;
      shown += fits;
    });
    told.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
  });
  search.addEventListener("input", filter);
  state.addEventListener("change", filter);
});

const fold = (row) => {
  const next = row?.nextElementSibling;
  if (next?.classList.contains("unfold")) {
    next.remove();
    row.querySelector(".name button")?.setAttribute("aria-expanded", "false");
  }
};

const unfoldable = part("rows", (table, data) => {
  const baseline = data.rows.find((row) => row.baseline)?.curve;
  [...table.tBodies[0].rows].forEach((row, i) => {
    const name = row.cells[data.opener].querySelector(".name");
    const button = element("button", { type: "button", "aria-expanded": "false" }, ...name.childNodes);
    name.append(button);
    const toggle = part("row", () => {
      if (row.nextElementSibling?.classList.contains("unfold")) { fold(row); return; }
      const cell = element("td", { colspan: row.cells.length }, unfolded(data.rows[i], baseline));
      row.after(element("tr", { class: "unfold" }, cell));
      button.setAttribute("aria-expanded", "true");
    });
    button.addEventListener("click", (event) => { event.stopPropagation(); toggle(); });
    row.addEventListener("click", () => { if (getSelection().isCollapsed) toggle(); });
  });
});

const unfolded = (row, baseline) => {
  const shown = element("div");
  if (row.differs) shown.append(element("p", {}, `differs from the baseline: ${row.differs}`));
  if (row.reason) shown.append(element("p", {}, `how it ended: ${row.reason}`));
  if (row.curve) shown.append(curve(row.curve, row.baseline ? null : baseline));
  for (const [name, command] of Object.entries(row.commands ?? {})) {
    const copy = element("button", { type: "button" }, "copy");
    const code = element("code", {}, command);
    copy.addEventListener("click", part("copy", async () => {
      try { await navigator.clipboard.writeText(command); } catch {
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      copy.textContent = "copied";
      setTimeout(() => { copy.textContent = "copy"; }, 1500);
    }));
    shown.append(element("p", {}, `${name}: `, code, " ", copy));
  }
  if (row.url) shown.append(element("p", {}, element("a", { href: row.url, rel: "noreferrer" }, "its run in MLflow")));
  if (!shown.children.length) shown.append(element("p", {}, "Nothing more is recorded of it."));
  return shown;
};

const curve = (points, baseline) => {
  const [width, height, left, bottom] = [420, 150, 46, 24];
  const all = [...points, ...(baseline ?? [])];
  const ends = (i) => [Math.min(...all.map((p) => p[i])), Math.max(...all.map((p) => p[i]))];
  const [[x0, x1], [y0, y1]] = [ends(0), ends(1)];
  const at = ([x, y]) => [
    left + ((x - x0) / (x1 - x0 || 1)) * (width - left - 14),
    height - bottom - ((y - y0) / (y1 - y0 || 1)) * (height - bottom - 12),
  ];
  const space = "http://www.w3.org/2000/svg";
  const node = (tag, attributes, text = "") => {
    const made = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  };
  const said = `validation accuracy by epoch: ${points[0][1]} at first, ${points.at(-1)[1]} at last`;
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said });
  const line = (path, colour, dash) => {
    const d = path.map((p, i) => `${i ? "L" : "M"}${at(p).map((v) => v.toFixed(1)).join(" ")}`).join("");
    svg.append(node("path", { d, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash }));
    for (const p of path.length <= 15 ? path : []) {
      const [cx, cy] = at(p);
      svg.append(node("circle", { cx, cy, r: 2.5, fill: colour }));
    }
  };
  if (baseline) line(baseline, "#d55e00", "5 3");
  line(points, "#2a8fd0", "");
  const text = (x, y, anchor, words) =>
    svg.append(node("text", { x, y, "text-anchor": anchor, "font-size": 11, fill: "currentColor" }, words));
  text(left - 5, at([x0, y0])[1] + 3, "end", y0.toFixed(4));
  if (y1 > y0) text(left - 5, at([x0, y1])[1] + 4, "end", y1.toFixed(4));
  text(left, height - 6, "start", `epoch ${x0}`);
  if (x1 > x0) text(width - 14, height - 6, "end", `${x1}`);
  text(width / 2, height - 6, "middle", baseline ? "val_accuracy; baseline dashed" : "val_accuracy");
  return svg;
};

// A column's explanation, while the pointer or the keyboard is on its head.

const explained = part("explanations", (table) => {
  const tip = document.getElementById("tip") ?? element("div", { id: "tip", hidden: "", "aria-hidden": "true" });
  document.body.append(tip);
  const hide = () => { tip.hidden = true; };
  for (const head of table.tHead.rows[0].cells) {
    const button = head.querySelector("button");
    const show = () => {
      tip.textContent = document.getElementById(button.getAttribute("aria-describedby")).textContent;
      tip.hidden = false;
      const [place, own] = [button.getBoundingClientRect(), tip.getBoundingClientRect()];
      tip.style.left = `${Math.max(4, Math.min(place.left, document.documentElement.clientWidth - own.width - 4))}px`;
      tip.style.top = place.bottom + own.height + 8 < innerHeight
        ? `${place.bottom + 5}px` : `${place.top - own.height - 5}px`;
    };
    head.addEventListener("pointerenter", show);
    head.addEventListener("pointerleave", hide);
    button.addEventListener("focus", show);
    button.addEventListener("blur", hide);
  }
  addEventListener("scroll", hide, { capture: true, passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
});

for (const table of document.querySelectorAll("table.rows")) {
  const section = table.closest("section");
  part("rows", () => unfoldable(table, JSON.parse(section.querySelector("script.unfolded").textContent)))();
  sortable(table);
  filterable(section.querySelector(".controls"), table);
  explained(table);
}
addEventListener("beforeprint", part("print", () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
}));
