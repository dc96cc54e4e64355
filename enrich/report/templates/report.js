
// Finds and sorts the texts of each catalogue. Without it all texts stand there, in the order of the report.
"use strict";
for (const tools of document.querySelectorAll(".tools")) {
  const of = (name) => tools.querySelector(`[data-tool="${name}"]`);
  const folded = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  const lists = [...tools.parentElement.querySelectorAll(".cards")].map((list) => ({
    list,
    count: list.parentElement.querySelectorAll("[data-count]")[[...list.parentElement.querySelectorAll(".cards")].indexOf(list)],
    cards: [...list.children].map((card) => ({
      card,
      said: folded([...card.querySelectorAll("[data-find]")].map((part) => part.textContent).join("\n")),
      flags: card.dataset.flags.split(" ").filter(Boolean),
    })),
  }));

  const fits = ({ card, said, flags }) => {
    const flag = of("flag").value;
    return (
      folded(of("find").value).split(/\s+/).every((word) => said.includes(word)) &&
      (!of("status").value || card.dataset.status === of("status").value) &&
      (!flag || (flag === "-" ? !flags.length : flags.includes(flag)))
    );
  };

  // A text without the number comes last, whichever way the others go.
  const order = (key) => {
    const sign = key.startsWith("-") ? -1 : 1;
    const number = ({ card }) => {
      const value = card.dataset[key.replace("-", "")];
      return value === undefined ? Infinity : sign * Number(value);
    };
    return (one, other) => number(one) - number(other) || 0;
  };

  const update = () => {
    const key = of("sort").value;
    for (const { list, count, cards } of lists) {
      list.append(...(key ? [...cards].sort(order(key)) : cards).map(({ card }) => card));
      for (const each of cards) each.card.hidden = !fits(each);
      const shown = cards.filter(({ card }) => !card.hidden).length;
      count.textContent = count.dataset.shown.replace("#", shown.toLocaleString(document.documentElement.lang));
    }
  };

  tools.hidden = false;
  tools.addEventListener("input", update);
}
