"""The small scripts of a page with many strategies: tables that sort, lists that switch, a legend of buttons, a searched list.

Each works on the elements that carry its data attributes and does nothing where there is none. All text is set as text.
"""

from __future__ import annotations

# A click on a column's head sorts by it, a second one the other way round; numbers first go down, words up; what is not
# there stays last. Numbers are read from what is shown.
SORT = """
(function () {
  function value(row, column) {
    var text = row.cells[column].textContent.trim();
    if (text === '–' || text === '') return null;
    if (/^\\d{4}-\\d{2}-\\d{2}/.test(text)) return text;
    var found = text.replace(/,/g, '').replace(/−/g, '-').match(/^[<>]? ?(-?\\d+(\\.\\d+)?)/);
    return found ? parseFloat(found[1]) : text.toLowerCase();
  }
  function sort(head, column) {
    var body = head.closest('table').tBodies[0], rows = Array.from(body.rows);
    var keys = new Map(rows.map(function (row) { return [row, value(row, column)]; }));
    var words = rows.some(function (row) { return typeof keys.get(row) === 'string'; });
    var was = head.getAttribute('aria-sort'), up = was === 'none' ? words : was === 'descending';
    rows.sort(function (a, b) {
      var x = keys.get(a), y = keys.get(b);
      if (x === null || y === null) return (x === null) - (y === null);
      if (words) { x = String(x); y = String(y); }
      return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
    });
    head.closest('thead').querySelectorAll('[aria-sort]').forEach(function (other) {
      other.setAttribute('aria-sort', 'none');
    });
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    body.append.apply(body, rows);
  }
  document.querySelectorAll('table.sortable thead tr:last-child').forEach(function (row) {
    Array.from(row.cells).forEach(function (head, column) {
      head.querySelector('button').addEventListener('click', function () { sort(head, column); });
    });
  });
})();
"""

# A list shows the blocks and draws the figures of its chosen entry.
SWITCH = """
document.querySelectorAll('select[data-pick]').forEach(function (list) {
  var name = list.dataset.pick, entries = [], templates = {};
  document.querySelectorAll('script[data-entries="' + name + '"]').forEach(function (source) {
    entries = JSON.parse(source.textContent);
  });
  document.querySelectorAll('script[data-switch="' + name + '"]').forEach(function (source) {
    templates[source.dataset.chart] = JSON.parse(source.textContent);
  });
  function merged(base, patch) {
    var whole = Object.assign({}, base);
    Object.keys(patch).forEach(function (key) {
      var inside = patch[key] && typeof patch[key] === 'object' && !Array.isArray(patch[key]) && base[key];
      whole[key] = inside ? merged(base[key], patch[key]) : patch[key];
    });
    return whole;
  }
  function show(chart, turn) {
    var place = document.getElementById(chart), box = place.closest('figure');
    if (box) box.classList.toggle('empty', !turn);
    if (!turn) return;
    var template = templates[chart];
    tradingPage.draw(chart, {
      data: template.data.map(function (trace, k) { return merged(trace, turn.traces[k] || { visible: false }); }),
      layout: merged(template.layout, turn.layout)
    });
  }
  function choose() {
    var chosen = list.value, entry = entries[chosen] || {};
    document.querySelectorAll('[data-turn="' + name + '"]').forEach(function (block) {
      block.hidden = block.dataset.entry !== chosen;
    });
    Object.keys(templates).forEach(function (chart) {
      tradingPage.later(function () { if (list.value === chosen) show(chart, entry[chart]); });
    });
  }
  list.addEventListener('change', choose);
  choose();
});
"""

# Buttons that show and hide the curves of one name in several charts; a set chooses many at once.
LEGEND = """
document.querySelectorAll('[data-legend]').forEach(function (legend) {
  var charts = legend.dataset.legend.split(' '), chips = Array.from(legend.querySelectorAll('[data-curve]'));
  function apply() {
    var shown = chips.map(function (chip) { return chip.getAttribute('aria-pressed') === 'true'; });
    var curves = chips.map(function (chip) { return Number(chip.dataset.curve); });
    charts.forEach(function (name) {
      var place = document.getElementById(name);
      if (place.data) Plotly.restyle(place, { visible: shown }, curves);
    });
  }
  chips.forEach(function (chip) {
    chip.addEventListener('click', function () {
      chip.setAttribute('aria-pressed', String(chip.getAttribute('aria-pressed') !== 'true'));
      apply();
    });
  });
  legend.querySelectorAll('[data-set]').forEach(function (button) {
    var wanted = button.dataset.set;
    button.addEventListener('click', function () {
      chips.forEach(function (chip) {
        var on = wanted === 'all' || chip.dataset.sets.split(' ').indexOf(wanted) >= 0;
        chip.setAttribute('aria-pressed', String(on));
      });
      apply();
    });
  });
});
"""

# A list of rows in pages, searched for words that all must occur in a row; rows come as columns of numbers, some of which
# are places in a list of words.
BLOTTER = """
document.querySelectorAll('[data-blotter]').forEach(function (box) {
  var data = JSON.parse(box.querySelector('script').textContent), count = data.columns[0].length, size = 25;
  var body = box.querySelector('tbody'), search = box.querySelector('input'), list = box.querySelector('select');
  var said = box.querySelector('[data-said]'), back = box.querySelector('[data-back]'), on = box.querySelector('[data-on]');
  var found = [], page = 0, texts = [];
  function cell(row, column) {
    var value = data.columns[column][row], words = data.words[column];
    if (words) return words[value];
    if (value === null) return '–';
    var digits = data.digits[column];
    return value.toLocaleString('en-US', { minimumFractionDigits: digits[0], maximumFractionDigits: digits[1] });
  }
  for (var row = 0; row < count; row++) {
    texts.push(data.searched.map(function (column) { return cell(row, column); }).join(' ').toLowerCase());
  }
  function draw() {
    body.textContent = '';
    found.slice(page * size, (page + 1) * size).forEach(function (row) {
      var line = body.insertRow();
      data.columns.forEach(function (_, column) {
        var place = line.insertCell();
        place.textContent = cell(row, column);
        if (data.words[column]) place.className = 'word';
      });
    });
    var last = Math.min((page + 1) * size, found.length);
    said.textContent = found.length ? (page * size + 1) + ' to ' + last + ' of ' + found.length.toLocaleString('en-US')
      : 'No fill matches.';
    back.disabled = page === 0;
    on.disabled = last >= found.length;
  }
  function look() {
    var words = search.value.toLowerCase().split(/\\s+/).filter(Boolean), only = list.value;
    found = [];
    for (var row = count - 1; row >= 0; row--) {
      if (only !== '' && data.columns[data.chosen][row] !== Number(only)) continue;
      if (words.every(function (word) { return texts[row].indexOf(word) >= 0; })) found.push(row);
    }
    page = 0;
    draw();
  }
  search.addEventListener('input', look);
  list.addEventListener('change', look);
  back.addEventListener('click', function () { page -= 1; draw(); });
  on.addEventListener('click', function () { page += 1; draw(); });
  look();
});
"""

# On paper nothing can be unfolded: what is folded up opens, and closes again after. What is marked as apart stays folded up.
PRINT = """
(function () {
  var opened = [];
  addEventListener('beforeprint', function () {
    opened = Array.from(document.querySelectorAll('details:not([open]):not(.apart)'));
    opened.forEach(function (fold) { fold.open = true; });
  });
  addEventListener('afterprint', function () { opened.forEach(function (fold) { fold.open = false; }); });
})();
"""

ALL = SORT + SWITCH + LEGEND + BLOTTER + PRINT
