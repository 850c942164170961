// Light or dark: as the system has it, unless a choice was kept here. A plain script, so that it
// runs before anything is drawn.
(() => {
  const NAME = "sgl-droute.theme";
  const CHOICES = ["system", "light", "dark"];

  function kept() {
    try {
      return CHOICES.includes(localStorage[NAME]) ? localStorage[NAME] : "system";
    } catch {
      return "system"; // storage is switched off
    }
  }

  function keep(choice) {
    try {
      localStorage[NAME] = choice;
    } catch {
      // It holds until the page is left.
    }
  }

  let choice = kept();

  function apply() {
    document.documentElement.dataset.theme = choice;
  }

  function label(button) {
    const next = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    button.setAttribute("aria-label", `Colours: ${choice}. Change to ${next}`);
    button.title = `Colours: ${choice}`;
  }

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme-button");
    label(button);
    button.addEventListener("click", () => {
      choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
      keep(choice);
      apply();
      label(button);
    });
  });
})();
