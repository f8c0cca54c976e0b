// Options that matter only with another choice are shown with it; all are sent either way.
const form = document.getElementById("new-job");

function sift() {
  const values = new FormData(form);
  for (const field of form.querySelectorAll("[data-only-with]")) {
    const [path, wanted] = field.dataset.onlyWith.split("=");
    const fits = wanted.split("|").includes(values.get(path));
    field.hidden = !fits && !field.querySelector(".fault");
  }
}

form.addEventListener("change", sift);
sift();
