// The contrast of each text of the page against what is behind it, as WCAG counts it.
(() => {
  const parse = (text) => text.match(/[\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((each, i) => each * a + under[i] * (1 - a));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((each) => each / 255).map((each) => each <= .04045 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const under = (node) => {
    const above = [];
    for (let each = node; each; each = each.parentElement) above.unshift(parse(getComputedStyle(each).backgroundColor));
    return above.reduce((colour, each) => over(each, colour), [255, 255, 255]);
  };
  const found = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.getClientRects().length) continue;
    if (node.closest('script, style, noscript')) continue;
    const style = getComputedStyle(node);
    const back = under(node);
    const colour = over(parse(node.namespaceURI.endsWith('svg') ? style.fill : style.color), back);
    const [one, two] = [light(colour), light(back)].sort((a, b) => b - a);
    found.set(`${colour} on ${back}: ${walker.currentNode.textContent}`, (one + .05) / (two + .05));
  }
  return [...found];
})()
