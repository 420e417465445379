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
    // A term says what it means, a citation which work it is: on hover and on focus, by the theme's own script.
    all(".bd-article a.reference[title]", function (link) { link.dataset.bsToggle = "tooltip"; });
    // An entry of a list is a list item; a list in a list belongs to one; the role for bibliographies is gone.
    all("[role=doc-biblioentry]", function (entry) { entry.setAttribute("role", "listitem"); });
    all("li + ul", function (list) { list.previousElementSibling.append(list); });
  });
})();
