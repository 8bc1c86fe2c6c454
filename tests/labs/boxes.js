// Measures what a page shows, as boxes of pixels. Evaluated by tests/labs/browser_lab.py.
({
  // A corner list (four points) of each line of visible text below the elements that match.
  texts(selector) {
    const boxes = [];
    for (const root of document.querySelectorAll(selector)) {
      const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
      for (let node; (node = walker.nextNode()); ) {
        const owner = node.parentElement;
        if (!node.data.trim() || ["SCRIPT", "STYLE", "TITLE", "OPTION"].includes(owner.tagName)) continue;
        if (!owner.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        const text = node.data.trim().replace(/\s+/g, " ").slice(0, 60);
        const drawn = owner.closest("text");
        if (drawn) {
          // A drawn text may be turned, so that an upright box around it would be too large.
          const { x, y, width, height } = owner.getBBox();
          const matrix = owner.getScreenCTM();
          const corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]];
          const placed = corners.map(([a, b]) => new DOMPoint(a, b).matrixTransform(matrix));
          if (width && height) boxes.push({ text, owner, points: placed.map((p) => [p.x, p.y]) });
          continue;
        }
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const r of range.getClientRects()) {
          const points = [[r.left, r.top], [r.right, r.top], [r.right, r.bottom], [r.left, r.bottom]];
          if (r.width > 1 && r.height > 1) boxes.push({ text, owner, points, node });
        }
      }
    }
    return boxes;
  },

  // True if no line along a side of one of two boxes has both apart, but for `slack` pixels.
  meet(first, second, slack) {
    for (const points of [first, second]) {
      for (let i = 0; i < 2; i++) {
        const [dx, dy] = [points[i + 1][0] - points[i][0], points[i + 1][1] - points[i][1]];
        const length = Math.hypot(dx, dy) || 1;
        const spans = [first, second].map((each) => {
          const along = each.map(([x, y]) => (x * dx + y * dy) / length);
          return [Math.min(...along), Math.max(...along)];
        });
        const common = Math.min(spans[0][1], spans[1][1]) - Math.max(spans[0][0], spans[1][0]);
        if (common <= slack) return false;
      }
    }
    return true;
  },

  overlaps({ selector, slack }) {
    const boxes = this.texts(selector);
    const pairs = new Set();
    for (let i = 0; i < boxes.length; i++) {
      for (let j = i + 1; j < boxes.length; j++) {
        const [a, b] = [boxes[i], boxes[j]];
        const isSame = (a.node && a.node === b.node) || a.owner.closest("text")?.isSameNode(b.owner.closest("text"));
        if (!isSame && this.meet(a.points, b.points, slack)) pairs.add(`${a.text} | ${b.text}`);
      }
    }
    return [...pairs];
  },

  // What sticks out of the page to the right or left, unless a part of the page that scrolls holds it.
  overflows({ selector, slack }) {
    const width = document.documentElement.clientWidth;
    const holds = (element) => {
      for (let each = element.parentElement; each; each = each.parentElement) {
        if (each === document.body || each === document.documentElement) return false;
        if (getComputedStyle(each).overflowX !== "visible") return true;
      }
      return false;
    };
    const out = new Set();
    for (const element of document.querySelectorAll(selector)) {
      const box = element.getBoundingClientRect();
      const isShown = box.width && box.height && element.checkVisibility();
      if (isShown && (box.right > width + slack || box.left < -slack) && !holds(element)) {
        const name = [element.tagName.toLowerCase(), ...element.classList].join(".");
        out.add(`${name} from ${Math.round(box.left)} to ${Math.round(box.right)} of ${width} px`);
      }
    }
    return [...out];
  },
})
