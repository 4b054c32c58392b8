// Draw each figure of the page; a click on a window opens the window's page.
const TICK_WIDTH = 85; // pixels of a day with its year
document.querySelectorAll("script[data-figure]").forEach((source) => {
  const element = document.getElementById(source.dataset.figure);
  const figure = JSON.parse(source.textContent);
  const { xaxis, yaxis } = figure.layout;
  if (xaxis.ticktext?.[0]?.includes("<br>")) {
    const names = (yaxis.ticktext ?? []).flatMap((name) => name.split("<br>")).map((line) => line.length);
    const room = element.clientWidth - 60 - 7 * Math.max(0, ...names); // 7 px a character of the other axis
    const intervals = Math.max(1, Math.floor(room / TICK_WIDTH) - 1);
    const step = Math.max(1, Math.ceil((xaxis.tickvals.length - 1) / intervals));
    xaxis.tickvals = xaxis.tickvals.filter((_, n) => n % step === 0);
    xaxis.ticktext = xaxis.ticktext.filter((_, n) => n % step === 0);
  }
  Plotly.newPlot(element, figure.data, figure.layout, { responsive: true, displayModeBar: false }).then(() => {
    const links = figure.layout.meta?.links;
    if (!links) return;
    element.classList.add("linked");
    element.on("plotly_click", ({ points }) => {
      location.href = links[points[0].x].split("/").map(encodeURIComponent).join("/");
    });
  });
});
