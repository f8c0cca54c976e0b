// Shows an option only with the choice it belongs to; hidden options keep their defaults.
const form = document.getElementById("new-job");

function updateVisibility() {
  const values = new FormData(form);
  const hidden = new Set();
  for (const field of form.querySelectorAll("[data-only-with]")) {
    const [path, allowed] = field.dataset.onlyWith.split("=");
    const applies = allowed.split("|").includes(values.get(path)) && !hidden.has(path);
    field.hidden = !applies && !field.querySelector(".field-error");
    if (field.hidden) for (const input of field.querySelectorAll("[name]")) hidden.add(input.name);
  }
  form.elements["hidden-options"].value = [...hidden].join(",");
  for (const part of form.querySelectorAll("details.advanced:not(.rare)")) {
    const count = part.querySelectorAll(":scope > .fields > :not([hidden])").length;
    part.hidden = count === 0;
    part.querySelector("[data-count]").textContent = count;
  }
}

// A link in the error summary opens the folds around its field and focuses it.
form.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#o-"]');
  const field = link && document.getElementById(link.hash.slice(1));
  if (!field) return;
  event.preventDefault();
  for (let part = field.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  field.focus();
  field.scrollIntoView({ block: "center" });
});

form.addEventListener("change", updateVisibility, true);
updateVisibility();
