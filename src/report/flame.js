
// The lines above come from the flamegraph renderer (inferno, after FlameGraph by Brendan Gregg).
// These adapt them to a sandboxed frame: no address to change, no dialog to open.
(function () {
    history.replaceState = function () {};
    var term = document.getElementById("term");
    var said = document.getElementById("said");
    window.prompt = function () { term.focus(); return null; };
    // Out of sight (behind another tab, below the window) a frame has no width to cut names to: the
    // renderer begins when it first comes up, and adapts when it comes up again. On paper its
    // drawing is as it was written.
    var begun = false;
    // The renderer already listens to the pointer.
    details = document.getElementById("details").firstChild;
    new IntersectionObserver(function (entries) {
        if (!entries.some(function (entry) { return entry.isIntersecting; })) return;
        if (begun) window.dispatchEvent(new Event("resize"));
        else begin();
    }).observe(document.body);
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
    function begin() {
        begun = true;
        init();
        // Frames wide enough to matter can be reached by keyboard.
        var groups = frames.children;
        for (var i = 0; i < groups.length; i++) {
            var group = groups[i];
            if (/ \[guessed\] \([^(]*\)$/.test(g_to_text(group))) group.classList.add("guessed");
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
    }
})();
