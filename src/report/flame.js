
// The lines above come from the flamegraph renderer (inferno, after FlameGraph by Brendan Gregg).
// These adapt them to a sandboxed frame: no address to change, no dialog to open.
(function () {
    history.replaceState = function () {};
    var term = document.getElementById("term");
    var said = document.getElementById("said");
    window.prompt = function () { term.focus(); return null; };
    var all = document.getElementById("frames").children;
    for (var n = 0; n < all.length; n++) {
        if (/ \[guessed\] \([^(]*\)$/.test(find_child(all[n], "title").textContent)) all[n].classList.add("guessed");
    }
    // Behind another tab there is no width to cut names to: again when it comes up.
    new IntersectionObserver(function (entries) {
        if (!entries.some(function (entry) { return entry.isIntersecting; })) return;
        known_font_width = get_monospace_width(frames);
        window.dispatchEvent(new Event("resize"));
    }).observe(document.body);
    init();
    function clear() {
        if (searching) search_prompt();
        said.textContent = "";
    }
    function find() {
        clear();
        if (!term.value) return;
        try {
            search(term.value);
        } catch (error) {
            said.textContent = "Not a regular expression.";
            return;
        }
        said.textContent = searching ? matchedtxt.textContent : "No frame matches.";
    }
    document.getElementById("find").addEventListener("click", find);
    term.addEventListener("keydown", function (event) { if (event.key === "Enter") find(); });
    document.getElementById("clear").addEventListener("click", function () { term.value = ""; clear(); });
    document.getElementById("reset").addEventListener("click", function () { unzoom(); });
    // Frames wide enough to matter can be reached by keyboard.
    var groups = frames.children;
    for (var i = 0; i < groups.length; i++) {
        var group = groups[i];
        if (parseFloat(find_child(group, "rect").attributes.width.value) < 2) continue;
        group.setAttribute("tabindex", "0");
        group.setAttribute("role", "button");
        group.setAttribute("aria-label", g_to_text(group));
        group.addEventListener("keydown", function (event) {
            if (event.key !== "Enter" && event.key !== " ") return;
            event.preventDefault();
            if (this.classList.contains("parent")) unzoom();
            zoom(this);
        });
        group.addEventListener("focus", function () { details.nodeValue = g_to_text(this); });
    }
})();
