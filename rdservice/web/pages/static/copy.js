// A button with data-copy="ID" copies the value of the field with that id. Without JavaScript it stays hidden.
"use strict";
for (const button of document.querySelectorAll("button[data-copy]")) {
  const field = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = button.dataset.done;
    } catch {
      // Without clipboard (plain http) or permission, select the text for Ctrl+C.
      field.focus();
    }
  });
}
