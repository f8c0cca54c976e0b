// Options that belong to another choice are shown with it alone; hidden ones keep their defaults.
const form = document.getElementById("new-job");

function sift() {
  const values = new FormData(form);
  const hidden = new Set();
  for (const field of form.querySelectorAll("[data-only-with]")) {
    const [path, wanted] = field.dataset.onlyWith.split("=");
    const fits = wanted.split("|").includes(values.get(path)) && !hidden.has(path);
    field.hidden = !fits && !field.querySelector(".field-error");
    if (field.hidden) for (const one of field.querySelectorAll("[name]")) hidden.add(one.name);
  }
  form.elements["hidden-options"].value = [...hidden].join(",");
  for (const part of form.querySelectorAll("details.advanced:not(.rare)")) {
    const shown = part.querySelectorAll(":scope > .fields > :not([hidden])").length;
    part.hidden = shown === 0;
    part.querySelector("[data-count]").textContent = shown;
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

form.addEventListener("change", sift, true);
sift();
