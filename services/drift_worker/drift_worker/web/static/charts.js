// Draw each figure of the page; a click on a window opens the window's page.
document.querySelectorAll("script[data-figure]").forEach((source) => {
  const element = document.getElementById(source.dataset.figure);
  const figure = JSON.parse(source.textContent);
  const narrow = element.clientWidth < 500;
  if (narrow && figure.layout.xaxis.tickvals?.length > 4) {
    const ticks = figure.layout.xaxis;
    ticks.tickvals = ticks.tickvals.filter((_, n) => n % 2 === 0);
    ticks.ticktext = ticks.ticktext.filter((_, n) => n % 2 === 0);
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
