// Options that matter only with another choice are shown with it; all are sent either way.
const form = document.getElementById("new-job");

function sift() {
  const values = new FormData(form);
  for (const field of form.querySelectorAll("[data-only-with]")) {
    const [path, wanted] = field.dataset.onlyWith.split("=");
    field.hidden = values.get(path) !== wanted && !field.querySelector(".fault");
  }
}

form.addEventListener("change", sift);
sift();
