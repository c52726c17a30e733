// The titles of the cards that something sticks out of.
[...document.querySelectorAll('.card')]
  .filter((card) => {
    const box = card.getBoundingClientRect();
    return [...card.querySelectorAll('*')].some((each) => {
      const { width, left, right } = each.getBoundingClientRect();
      return width && (right > box.right + 1 || left < box.left - 1);
    });
  })
  .map((card) => card.querySelector('h3').textContent)
