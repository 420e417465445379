/* What the theme leaves undone for keyboards, screen readers and readers who open the book from disk. */
(function () {
  // Over file:// a script may not read other pages, so search lists the pages it found without their beginnings.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  document.addEventListener("readystatechange", function () {
    if (document.readyState !== "interactive") return; // the page is whole, the theme's own scripts wait
    var all = function (selector, change) { document.querySelectorAll(selector).forEach(change); };
    // A button is called what stands on it.
    all(".search-button-field", function (button) { button.removeAttribute("aria-label"); });
    all(".theme-switch", function (icon) { icon.removeAttribute("title"); });
    all("details.hide > summary", function (summary) { summary.removeAttribute("aria-label"); });
    all(".has-children > details > summary", function (summary) {
      summary.setAttribute("aria-label", "Pages below " + summary.closest("li").querySelector("a").textContent.trim());
    });
    // A term says what it means, a citation which work it is, a link to a figure shows it: on hover and on focus, by
    // the theme's own script.
    all(".bd-article a.reference[title]", function (link) { link.dataset.bsToggle = "tooltip"; });
    all(".bd-article a.reference > template", function (shown) {
      Object.assign(shown.parentNode.dataset, {bsToggle: "tooltip", bsHtml: "true", bsTitle: shown.innerHTML});
    });
    // A browser would break a command at a hyphen, even between the two of an option.
    all(".highlight-bash pre, .highlight-bash pre span", function (part) {
      Array.from(part.childNodes).filter(function (node) { return node.nodeType === 3; }).forEach(function (text) {
        text.replaceWith.apply(text, text.data.split(/(\S*-\S*)/).map(function (words, i) {
          if (i % 2 === 0) return words;
          return Object.assign(document.createElement("span"), {className: "viptt-word", textContent: words});
        }));
      });
    });
    // Each cell says what its column is called, for the rows of tables that are cards (custom.css). A table that is
    // laid out as cards is one no more for those who do not see it, unless it says so.
    all(".bd-article table:has(thead)", function (table) {
      var names = table.tHead.rows[table.tHead.rows.length - 1].cells;
      table.setAttribute("role", "table");
      table.querySelectorAll("thead, tbody").forEach(function (part) { part.setAttribute("role", "rowgroup"); });
      Array.from(table.rows, function (row) {
        row.setAttribute("role", "row");
        Array.from(row.cells, function (cell, i) {
          var head = cell.tagName === "TH" && (row.parentNode === table.tHead ? "columnheader" : "rowheader");
          cell.setAttribute("role", head || "cell");
          cell.dataset.label = names[i] ? names[i].textContent.trim() : "";
          cell.classList.toggle("viptt-long", i === 0 || cell.textContent.length > 28);
          cell.classList.toggle("viptt-name", cell.textContent.trim().length <= 12);
        });
      });
    });
    // Rows are cards on a phone, and wherever a table does not fit.
    var fit = function () {
      all(".bd-article table[role=table]", function (table) {
        table.classList.remove("viptt-cards");
        var narrow = innerWidth <= 600 && table.tHead.rows[0].cells.length > 3;
        table.classList.toggle("viptt-cards", narrow || table.offsetWidth > table.parentNode.clientWidth);
      });
    };
    addEventListener("load", fit);
    addEventListener("resize", fit);
    document.addEventListener("toggle", fit, true); // of what unfolds
    // An entry of a list is a list item; a list in a list belongs to one; the role for bibliographies is gone.
    all("[role=doc-biblioentry]", function (entry) { entry.setAttribute("role", "listitem"); });
    all("li + ul", function (list) { list.previousElementSibling.append(list); });
  });
})();
