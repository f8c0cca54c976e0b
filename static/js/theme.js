// Runs before the first paint: sets the chosen theme, or the system's, on the root element.
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return window.localStorage.getItem("theme") || "system";
    } catch (error) {
      return "system";
    }
  }

  function apply() {
    var choice = chosen();
    var theme = choice === "system" ? (dark.matches ? "dark" : "light") : choice;
    var changed = document.documentElement.dataset.theme !== theme;
    document.documentElement.dataset.theme = theme;
    var meta = document.querySelector('meta[name="theme-color"]');
    if (meta) meta.content = theme === "dark" ? "#0e1116" : "#f6f7f9";
    if (changed) document.dispatchEvent(new CustomEvent("themechange"));
  }

  window.edgewiseTheme = {
    chosen: chosen,
    choose: function (choice) {
      try {
        window.localStorage.setItem("theme", choice);
      } catch (error) {
        document.documentElement.dataset.theme = choice === "dark" ? "dark" : "light";
      }
      apply();
    },
  };
  dark.addEventListener("change", apply);
  apply();
})();
