"""How the report's page looks: one style sheet, for light and dark, wide and narrow.

Colours of arms are Okabe and Ito's, which colour-blind readers tell apart; a shape or a dash
pattern always says the same as a colour. The dark ones are lighter, for contrast.
"""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b2330;
  --soft: #566072; --rule: #dde1e8; --good: #0b6b45; --bad: #a3261b; --link: #0065a8;
  --note: #fff5dc; --note-rule: #e0b03c; --truth: #1b2330; --zero: #7a8496;
  --arm0: #687385; --arm1: #b3580a; --arm2: #0065a8; --arm3: #007a5a; --arm4: #a5407a; }
@media (prefers-color-scheme: dark) { :root { --page: #12161d; --card: #1b212b; --ink: #e8ecf2;
  --soft: #a3adbd; --rule: #333c4a; --good: #5fd0a0; --bad: #ff8d80; --link: #5bb4f0;
  --note: #33290f; --note-rule: #b98f2b; --truth: #f4f6fa; --zero: #7f8a9c;
  --arm0: #9aa5b6; --arm1: #f0a04b; --arm2: #5bb4f0; --arm3: #3fc79a; --arm4: #e48dc0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.1rem; font-weight: 600; margin: 0; color: var(--soft); }
h2 { font-size: 1.2rem; margin: 0 0 4px; }
h3 { font-size: 1rem; margin: 22px 0 6px; }
p { margin: 6px 0; max-width: 76ch; }
a { color: var(--link); }
.soft { color: var(--soft); }
.small { font-size: 0.86rem; }
.headline { font-size: 1.6rem; line-height: 1.28; font-weight: 650; margin: 10px 0 14px;
  letter-spacing: -0.01em; max-width: 44ch; text-wrap: balance; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 12px;
  padding: 20px 22px; margin: 18px 0; }
.note { background: var(--note); border-left: 4px solid var(--note-rule); border-radius: 6px;
  padding: 8px 12px; margin: 12px 0; font-size: 0.92rem; max-width: none; }
.warning { border-left-color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 16px 0 14px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 10px 14px; }
.tile b { display: block; font-size: 1.3rem; line-height: 1.3; }
.tile span { color: var(--soft); font-size: 0.85rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; margin: 8px 0; }
th, td { padding: 6px; text-align: right; border-bottom: 1px solid var(--rule);
  vertical-align: top; white-space: nowrap; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child, td:first-child, th.left, td.left { text-align: left; }
tbody th { color: var(--ink); }
td small { display: block; color: var(--soft); font-size: 0.78rem; }
td.wrap { white-space: normal; }
caption { text-align: left; color: var(--soft); font-size: 0.86rem; padding-bottom: 4px; }
details { margin: 10px 0 0; } summary { cursor: pointer; color: var(--soft); font-size: 0.9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 8px 0;
  font-size: 0.92rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
svg { display: block; overflow: visible; } svg text { fill: var(--soft); font-size: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 0.88rem; margin: 8px 0; }
.legend span { display: inline-flex; align-items: center; gap: 7px; }
.row { display: grid; grid-template-columns: 230px 1fr 268px; align-items: center; gap: 16px;
  border-bottom: 1px solid var(--rule); padding: 7px 0; }
.row .values { text-align: right; white-space: nowrap; }
.row .values small, .row .who small { display: block; color: var(--soft); font-size: 0.82rem; }
.row.axis { border-bottom: 0; padding: 0; } .row.head { padding: 12px 0 4px; font-weight: 650; }
.days { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 26px; }
.swatch { width: 26px; height: 10px; flex: none; display: inline-block; margin-right: 7px; }
.legend .swatch { margin: 0; }
.a0 { --arm: var(--arm0); } .a1 { --arm: var(--arm1); } .a2 { --arm: var(--arm2); }
.a3 { --arm: var(--arm3); } .a4 { --arm: var(--arm4); }
.stroke { stroke: var(--arm); fill: none; } .fill { fill: var(--arm); }
.grid { stroke: var(--rule); stroke-width: 1; } .zero { stroke: var(--zero); stroke-width: 1.5; }
.truth { fill: var(--card); stroke: var(--truth); stroke-width: 2; }
.bar { height: 6px; border-radius: 3px; background: var(--arm); margin: 5px 0 0 auto; }
@media (max-width: 720px) { main { padding: 18px 12px 40px; } section { padding: 16px 14px; }
  .headline { font-size: 1.3rem; } .row { grid-template-columns: 1fr auto; gap: 2px 12px; }
  .row svg { grid-column: 1 / -1; grid-row: 2; } .row > svg { overflow: hidden; }
  .row.axis > :first-child,
  .row.axis > :last-child { display: none; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 8px; } th, td { padding: 5px 7px; } }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
"""The style sheet; it refers to nothing outside the page."""
