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
    // On a phone a row of a table of many columns is a card: each cell says the name of its column (custom.css).
    all(".bd-article table:has(thead)", function (table) {
      var heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells, function (cell) { return cell.textContent.trim(); });
      if (heads.length < 4) return;
      table.classList.add("viptt-cards");
      table.setAttribute("role", "table"); // a table that is laid out as cards is one no more, unless it says so
      table.querySelectorAll("thead, tbody").forEach(function (part) { part.setAttribute("role", "rowgroup"); });
      Array.from(table.rows, function (row) {
        row.setAttribute("role", "row");
        Array.from(row.cells, function (cell, i) {
          cell.setAttribute("role", cell.closest("thead") ? "columnheader" : "cell");
          cell.dataset.label = heads[i] || "";
          cell.classList.toggle("viptt-long", i === 0 || cell.textContent.length > 28);
        });
      });
    });
    // An entry of a list is a list item; a list in a list belongs to one; the role for bibliographies is gone.
    all("[role=doc-biblioentry]", function (entry) { entry.setAttribute("role", "listitem"); });
    all("li + ul", function (list) { list.previousElementSibling.append(list); });
  });
})();
