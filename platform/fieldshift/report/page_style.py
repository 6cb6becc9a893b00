"""The style sheet of the report page: one column of text, restrained, for screens and for paper."""

STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--muted:#5a6068;--rule:#d5d8dc;--paper:#fefefe;--tint:#f3f4f5;
--link:#005a94;--blue:#0072b2;--grey:#a3a8ae;--brown:#7f6a3f;
--serif:Charter,"Bitstream Charter","Iowan Old Style","Source Serif 4",Cambria,Georgia,
"Noto Serif","Liberation Serif",serif;
--sans:-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Liberation Sans",Arial,sans-serif;
--mono:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){:root{--ink:#e4e6e8;--muted:#a2a8af;--rule:#3b4046;--paper:#15181b;--tint:#1f2327;
--link:#7db9e8;--blue:#3d97d3;--grey:#6d747c;--brown:#b39a63}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1.0625rem/1.55 var(--serif);
font-variant-numeric:oldstyle-nums proportional-nums;hyphens:manual}
main,body>header{max-width:48rem;margin:0 auto;padding:0 1.25rem 5rem}
body>header{padding:3.5rem 1.25rem 1rem}
h1,h2,h3{line-height:1.2;text-wrap:balance;font-weight:600}
h1{font-size:2.1rem;margin:0 0 .5rem;letter-spacing:-.01em}
h2{font-size:1.4rem;margin:3.2rem 0 .9rem;padding-top:.7rem;border-top:1px solid var(--rule)}
h3{font-size:1.1rem;margin:2rem 0 .6rem}
h2 .number{color:var(--muted);font-weight:400;margin-right:.7em}
.subtitle{font-size:1.15rem;color:var(--muted);margin:.2rem 0 .4rem}
.date{color:var(--muted);margin:0;font:.85rem var(--sans);font-variant-numeric:tabular-nums lining-nums}
p{margin:0 0 .95rem;text-wrap:pretty}
p.lead{font-size:1.15rem;line-height:1.5}
a{color:var(--link);text-decoration-thickness:.06em;text-underline-offset:.16em}
ul{padding-left:1.15rem;margin:0 0 1rem}
li{margin:.3rem 0}
nav{font:.875rem/1.45 var(--sans);max-width:48rem;margin:0 auto;padding:1rem 1.25rem 0}
nav h2{font:600 .8rem var(--sans);margin:0 0 .5rem;padding:0;border:0;color:var(--muted)}
nav ol{list-style:none;margin:0;padding:0;columns:2 14rem;column-gap:2rem}
nav li{margin:0;padding:.12rem 0;break-inside:avoid}
nav a{color:inherit;text-decoration:none;display:flex;gap:.6em}
nav a:hover{text-decoration:underline}
nav .number{color:var(--muted);min-width:1em;font-variant-numeric:tabular-nums}
.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:1rem;background:var(--paper);padding:.4rem .8rem;z-index:1}
.key-numbers{list-style:none;padding:0;margin:1.6rem 0 1.8rem;display:grid;gap:1.2rem 1.5rem;
grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr))}
.key-numbers li{margin:0;border-top:2px solid var(--ink);padding-top:.5rem;display:flex;flex-direction:column}
.value{font:600 1.7rem/1.15 var(--sans);font-variant-numeric:tabular-nums lining-nums;letter-spacing:-.015em}
.label{font:600 .875rem/1.35 var(--sans);margin-top:.25rem}
.note{font:.8125rem/1.4 var(--sans);color:var(--muted);margin-top:.15rem}
.table{margin:1.8rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font:.8125rem/1.35 var(--sans);font-variant-numeric:tabular-nums lining-nums;
border-bottom:1.5px solid var(--ink)}
caption{caption-side:top;text-align:left;padding-bottom:.55rem;font:.875rem/1.45 var(--sans);color:var(--ink)}
thead th{border-top:1.5px solid var(--ink);border-bottom:1px solid var(--ink);font-weight:600;vertical-align:bottom}
th,td{padding:.32rem .5rem;text-align:left;vertical-align:baseline}
th:first-child,td:first-child{padding-left:.1rem}
th:last-child,td:last-child{padding-right:.1rem}
tbody th{font-weight:400;max-width:15rem;overflow-wrap:break-word}
tbody tr+tr th,tbody tr+tr td{border-top:1px solid var(--rule)}
.r{text-align:right}
td.r{white-space:nowrap}
tr.strong th,tr.strong td{font-weight:600}
.none{color:var(--muted)}
.table-note{font:.8rem/1.45 var(--sans);color:var(--muted);margin:.4rem 0 0}
figure{margin:1.9rem 0;break-inside:avoid}
.drawing,figure img{display:block;width:100%;height:auto}
figure img{max-width:100%}
.plate{background:#fff}
@media (prefers-color-scheme:dark){.plate{padding:.6rem;border-radius:2px}}
figcaption{font:.875rem/1.45 var(--sans);margin-top:.6rem;color:var(--ink)}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.35rem 1.4rem;margin:0 0 1.2rem;
font:.875rem/1.45 var(--sans);font-variant-numeric:tabular-nums lining-nums}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
code,pre{font-family:var(--mono);font-size:.86em}
pre{background:var(--tint);padding:.8rem 1rem;white-space:pre-wrap;overflow-wrap:anywhere;
line-height:1.5;margin:0 0 1.2rem;font-size:.8125rem}
pre code{font-size:inherit}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
@media (min-width:78rem){
body{display:grid;grid-template-columns:minmax(12rem,1fr) minmax(0,52rem) minmax(0,1fr);
grid-template-rows:auto 1fr;grid-template-areas:"nav head ." "nav main ."}
body>header{grid-area:head}
main{grid-area:main}
nav{grid-area:nav;position:sticky;top:0;align-self:start;justify-self:end;width:13.5rem;padding:4.1rem 0 1rem 1rem;
max-height:100vh;
overflow-y:auto;margin:0}
nav ol{columns:1}
main,body>header{max-width:52rem;width:100%;margin:0;padding-left:3rem;padding-right:3rem}
}
@media (max-width:34rem){tbody th,thead th:first-child{position:sticky;left:0;background:var(--paper);max-width:7.5rem}
body{font-size:1rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
@media print{
:root{--ink:#000;--muted:#444;--rule:#bbb;--paper:#fff;--tint:#f4f4f4;--link:#000;--blue:#0072b2;--grey:#a3a8ae;
--brown:#7f6a3f}
html{font-size:9.5pt}
@page{margin:18mm 16mm}
body{display:block}
main,nav,body>header{max-width:none;padding:0}
nav{position:static;width:auto;margin:5mm 0 6mm}
.skip{display:none}
.scroll{overflow:visible}
table{font-size:7.5pt}
th,td{padding:.25rem .3rem}
h2,h3,caption{break-after:avoid}
tr,figure,.key-numbers,pre{break-inside:avoid}
a{text-decoration:none}
}
"""
