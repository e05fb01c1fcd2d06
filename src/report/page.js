
"use strict";
// The page is whole without this: every lane drawn over the whole run, every flamegraph below the
// other. This redraws the lanes from the data block for a part of the run, and makes tabs.
(function () {
    var SVG = "http://www.w3.org/2000/svg";
    function all(css, within) { return Array.from((within || document).querySelectorAll(css)); }
    function by(id) { return document.getElementById(id); }
    function clamp(value, least, most) { return Math.min(Math.max(value, least), most); }

    // Numbers as `text.rs` writes them.
    function number(value) {
        var size = Math.abs(value);
        var digits = Number.isInteger(value) || size >= 100 ? 0 : size >= 10 ? 1 : 2;
        return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
    }
    function span(ms) {
        if (ms < 1000) return ms.toFixed(0) + " ms";
        if (ms < 59950) return (ms / 1000).toFixed(ms < 10000 ? 2 : 1) + " s";
        var s = Math.round(ms / 1000);
        if (s < 3600) return Math.floor(s / 60) + " min " + String(s % 60).padStart(2, "0") + " s";
        return Math.floor(s / 3600) + " h " + String(Math.floor(s % 3600 / 60)).padStart(2, "0") + " min";
    }
    function offset(ms) {
        var size = Math.abs(Math.round(ms));
        return (ms < 0 ? "−" : "+") + Math.floor(size / 1000).toLocaleString("en-US") + "." + String(size % 1000).padStart(3, "0") + " s";
    }

    function timeline() {
        var root = by("lanes");
        if (!root) return;
        var data = JSON.parse(by("lanes-data").textContent);
        var begin = data.begin, end = Math.max(data.end, data.begin + 1);
        var least = Math.min(40, end - begin);
        var view = { from: begin, to: end };
        var cursor = null;
        var quiet = 0;
        var lanes = all("figure.lane", root).map(function (figure, index) {
            var lane = data.lanes[index], at = 0;
            return {
                x: lane.x.map(function (step) { return (at += step); }),
                y: lane.y, gaps: lane.gaps, top: lane.top,
                title: figure.querySelector("h3").firstChild.textContent,
                names: all(".name", figure).map(function (name) { return name.textContent; }),
                paths: all("path.line", figure),
                figures: all(".figures", figure).map(function (element) {
                    return { element: element, text: element.textContent };
                }),
                hatch: figure.querySelector("g.gaps")
            };
        });
        var ruler = root.querySelector("figure.lane svg.plot");
        var cross = document.createElement("div"), pick = document.createElement("div");
        cross.className = "cross";
        pick.className = "pick";
        cross.hidden = pick.hidden = true;
        root.append(cross, pick);

        function position(ms) { return (ms - view.from) / (view.to - view.from); }
        function inside(ms) { return ms >= view.from && ms <= view.to; }
        function percent(share) { return (share * 100).toFixed(3) + "%"; }
        function clock(ms) { return new Date(data.zero + ms).toISOString().slice(11, 23); }
        /// The first index of `x` that is not below `ms`.
        function first(x, ms) {
            var low = 0, high = x.length;
            while (low < high) {
                var middle = (low + high) >> 1;
                if (x[middle] < ms) low = middle + 1; else high = middle;
            }
            return low;
        }
        function nearest(x, ms) {
            var index = first(x, ms);
            return index > 0 && (index === x.length || ms - x[index - 1] < x[index] - ms) ? index - 1 : index;
        }

        // One line as path data: cut at the edges of the view, thinned to least and greatest per
        // column where there are more points than columns.
        function trace(lane, values) {
            var low = Math.max(first(lane.x, view.from) - 1, 0);
            var high = Math.min(first(lane.x, view.to) + 1, lane.x.length);
            var points = [];
            for (var i = low; i < high; i++) points.push([lane.x[i], values[i]]);
            if (points.length > 1600) points = thin(points, 800);
            var d = "", last = null, alone = false;
            function dot() { if (alone) d += "h0"; alone = false; }
            points.forEach(function (point) {
                if (point[1] === null) { dot(); last = null; return; }
                var to = point;
                if (last && inside(last[0]) !== inside(to[0]) || last && last[0] < view.from && to[0] > view.to) {
                    var a = cut(last, to, view.from), b = cut(last, to, view.to);
                    if (last[0] < view.from) { dot(); d += "M" + place(a); alone = false; }
                    to = to[0] > view.to ? b : to;
                    d += "L" + place(to);
                    alone = false;
                } else if (inside(to[0])) {
                    if (last) { d += "L" + place(to); alone = false; } else { dot(); d += "M" + place(to); alone = true; }
                }
                last = point;
            });
            dot();
            return d;
            function cut(a, b, ms) {
                var share = clamp((ms - a[0]) / (b[0] - a[0] || 1), 0, 1);
                return [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share];
            }
            function place(point) {
                var y = 100 - clamp(point[1] / lane.top, 0, 1) * 100;
                return (position(point[0]) * 1000).toFixed(1) + " " + y.toFixed(1);
            }
        }
        function thin(points, columns) {
            var kept = [], width = (view.to - view.from) / columns, i = 0;
            while (i < points.length) {
                var column = Math.floor((points[i][0] - view.from) / width), low = null, high = null, none = points[i];
                for (; i < points.length && Math.floor((points[i][0] - view.from) / width) === column; i++) {
                    if (points[i][1] === null) continue;
                    if (!low || points[i][1] < low[1]) low = points[i];
                    if (!high || points[i][1] > high[1]) high = points[i];
                }
                if (!low) kept.push([none[0], null]);
                else if (low === high) kept.push(low);
                else kept.push(low[0] < high[0] ? low : high, low[0] < high[0] ? high : low);
            }
            return kept;
        }

        function stretch(rect, from, to) {
            var a = clamp(position(from), 0, 1), b = clamp(position(to), 0, 1);
            rect.setAttribute("x", percent(a));
            rect.setAttribute("width", percent(Math.max(b - a, 0)));
        }
        function text(x, label, anchor, y, css) {
            var element = document.createElementNS(SVG, "text");
            element.setAttribute("x", percent(x));
            element.setAttribute("y", y);
            element.setAttribute("text-anchor", anchor);
            if (css) element.setAttribute("class", css);
            element.textContent = label;
            return element;
        }

        function draw() {
            lanes.forEach(function (lane) {
                lane.paths.forEach(function (path, index) { path.setAttribute("d", trace(lane, lane.y[index])); });
                var least = (view.to - view.from) / 480;
                lane.hatch.replaceChildren.apply(lane.hatch, lane.gaps.filter(function (gap) {
                    return gap[1] > view.from && gap[0] < view.to && gap[1] - gap[0] >= least;
                }).map(function (gap) {
                    var rect = document.createElementNS(SVG, "rect");
                    rect.setAttribute("class", "gap");
                    rect.setAttribute("height", "100%");
                    rect.setAttribute("fill", "url(#hatch)");
                    stretch(rect, gap[0], gap[1]);
                    return rect;
                }));
            });
            all("[data-from]", root).forEach(function (rect) {
                stretch(rect, Number(rect.dataset.from), Number(rect.dataset.to));
            });
            // A name that does not fit to the right of its instant stands to the left.
            var late = 1 - 170 / Math.max(ruler.getBoundingClientRect().width, 171);
            all("[data-at]", root).forEach(function (mark) {
                var ms = Number(mark.dataset.at), x = position(ms);
                mark.classList.toggle("away", !inside(ms));
                if (mark.localName === "text") {
                    mark.setAttribute("x", percent(x));
                    mark.setAttribute("dx", x > late ? "-5" : "5");
                    mark.setAttribute("text-anchor", x > late ? "end" : "start");
                } else {
                    mark.setAttribute("x1", percent(x));
                    mark.setAttribute("x2", percent(x));
                }
            });
            links();
            ticks();
            by("wall-from").textContent = clock(view.from);
            by("wall-to").textContent = clock(view.to) + " UTC";
            var whole = end - begin, where = by("where").style;
            where.left = percent((view.from - begin) / whole);
            where.width = percent((view.to - view.from) / whole);
            var is_all = view.from === begin && view.to === end;
            root.classList.toggle("zoomed", !is_all);
            by("shown").textContent = is_all
                ? "The whole run: " + span(whole)
                : span(view.to - view.from) + " of " + span(whole) + ", " + offset(view.from) + " to " + offset(view.to);
            read();
        }
        function links() {
            var group = root.querySelector("g.links");
            if (!group) return;
            var apart = 26 / Math.max(ruler.getBoundingClientRect().width, 1), groups = [];
            group.dataset.links.split(" ").forEach(function (link) {
                var parts = link.split(":"), ms = Number(parts[1]), last = groups[groups.length - 1];
                if (!inside(ms)) return;
                if (last && position(ms) - position(last.ms) < apart) last.to = parts[0];
                else groups.push({ ms: ms, from: parts[0], to: parts[0] });
            });
            group.replaceChildren.apply(group, groups.map(function (one) {
                return text(position(one.ms), one.from === one.to ? one.from : one.from + "–" + one.to, "middle", 13, "link");
            }));
        }
        function ticks() {
            var steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 144e5, 864e5];
            var length = view.to - view.from;
            var fit = ruler.getBoundingClientRect().width < 500 ? 5 : 9;
            var step = steps.find(function (step) { return length / step < fit; }) || length;
            var drawn = [];
            for (var n = Math.ceil(view.from / step); n * step <= view.to; n++) {
                var x = position(n * step), line = document.createElementNS(SVG, "line");
                line.setAttribute("class", "grid");
                line.setAttribute("x1", percent(x));
                line.setAttribute("x2", percent(x));
                line.setAttribute("y1", "0");
                line.setAttribute("y2", "4");
                drawn.push(line, text(x, label(n * step), x < 0.04 ? "start" : x > 0.96 ? "end" : "middle", 15));
            }
            by("ticks").replaceChildren.apply(by("ticks"), drawn);
        }
        function label(ms) {
            if (ms === 0) return data.onset ? "onset" : "begin";
            var size = Math.abs(ms);
            var unit = [[36e5, "h"], [6e4, "min"], [1e3, "s"], [1, "ms"]].find(function (unit) { return size % unit[0] === 0; });
            return (ms < 0 ? "−" : "+") + (size / unit[0]).toLocaleString("en-US") + " " + unit[1];
        }

        // The values of all lanes at the cursor stand where the greatest values stood.
        function read() {
            var seen = cursor !== null && inside(cursor);
            cross.hidden = !seen;
            root.classList.toggle("reading", seen);
            by("instant").textContent = seen ? offset(cursor) + ", " + clock(cursor) + " UTC" : "";
            if (seen) {
                var plot = ruler.getBoundingClientRect();
                cross.style.left = (plot.left - root.getBoundingClientRect().left + position(cursor) * plot.width) + "px";
            }
            lanes.forEach(function (lane) {
                var index = seen && lane.x.length ? nearest(lane.x, cursor) : 0;
                lane.figures.forEach(function (figure, line) {
                    var value = seen && lane.y[line] ? lane.y[line][index] : null;
                    figure.element.textContent = !seen ? figure.text : value === null || value === undefined ? "no reading" : number(value);
                });
            });
        }
        function say(with_values) {
            clearTimeout(quiet);
            quiet = setTimeout(function () {
                var told = by("shown").textContent + ".";
                if (with_values && cursor !== null) {
                    told = by("instant").textContent + ". " + lanes.map(function (lane) {
                        return lane.title + ": " + lane.figures.map(function (figure, line) {
                            return lane.names[line] + " " + figure.element.textContent;
                        }).join(", ");
                    }).join(". ") + ".";
                }
                by("said").textContent = told;
            }, 250);
        }

        function show(from, to) {
            var length = clamp(to - from, least, end - begin);
            from = clamp((from + to - length) / 2, begin, end - length);
            view = { from: from, to: Math.min(from + length, end) };
            draw();
        }
        function zoom(factor, around) {
            var center = around === undefined ? (cursor !== null && inside(cursor) ? cursor : (view.from + view.to) / 2) : around;
            var length = clamp((view.to - view.from) * factor, least, end - begin);
            var from = center - (center - view.from) / (view.to - view.from) * length;
            from = clamp(from, begin, end - length);
            show(from, from + length);
        }
        function pan(share) {
            var length = view.to - view.from;
            var from = clamp(view.from + length * share, begin, end - length);
            show(from, from + length);
        }
        function step(by_one) {
            var x = lanes[0].x, at = cursor !== null && inside(cursor) ? cursor : (view.from + view.to) / 2;
            var index = clamp(nearest(x, at) + (cursor === null ? 0 : by_one), 0, x.length - 1);
            cursor = x[index];
            if (inside(cursor)) read(); else show(cursor - (view.to - view.from) / 2, cursor + (view.to - view.from) / 2);
        }
        var actions = {
            in: function () { zoom(0.5); },
            out: function () { zoom(2); },
            all: function () { show(begin, end); },
            onset: function () {
                var after = Math.max(5000, data.detected * 2);
                show(-Math.min(after, 5000), after);
            }
        };
        by("tools").hidden = false;
        by("tools").addEventListener("click", function (event) {
            var button = event.target.closest("button");
            if (button) { actions[button.dataset.do](); say(false); }
        });
        root.tabIndex = 0;
        root.addEventListener("keydown", function (event) {
            if (event.ctrlKey || event.altKey || event.metaKey) return;
            var keys = {
                "+": actions.in, "=": actions.in, "-": actions.out, "_": actions.out, "0": actions.all,
                "o": data.onset ? actions.onset : null,
                "ArrowLeft": function () { if (event.shiftKey) step(-1); else pan(-0.2); },
                "ArrowRight": function () { if (event.shiftKey) step(1); else pan(0.2); },
                "Escape": function () { cursor = null; read(); }
            };
            var act = keys[event.key];
            if (!act) return;
            event.preventDefault();
            act();
            say(event.shiftKey && event.key.indexOf("Arrow") === 0);
        });

        // Dragging over a plot picks a stretch; dragging the axis moves along it.
        var drag = null;
        function at(event) {
            var plot = ruler.getBoundingClientRect();
            return view.from + clamp((event.clientX - plot.left) / plot.width, 0, 1) * (view.to - view.from);
        }
        function over(event) {
            var plot = ruler.getBoundingClientRect();
            return event.clientX >= plot.left && event.clientX <= plot.right;
        }
        root.addEventListener("pointerdown", function (event) {
            if (event.button !== 0 || !over(event) || event.target.closest("a, button")) return;
            var axis = by("axis").contains(event.target);
            drag = { x: event.clientX, ms: at(event), from: view.from, to: view.to, axis: axis };
            // Capture fails for a pointer that is gone already: the drag then ends at the edge.
            try { root.setPointerCapture(event.pointerId); } catch (_) { }
        });
        root.addEventListener("pointermove", function (event) {
            if (drag && drag.axis) {
                var plot = ruler.getBoundingClientRect();
                var moved = (drag.x - event.clientX) / plot.width * (drag.to - drag.from);
                var from = clamp(drag.from + moved, begin, end - (drag.to - drag.from));
                show(from, from + drag.to - drag.from);
                return;
            }
            cursor = drag || over(event) ? at(event) : null;
            if (drag) {
                var base = root.getBoundingClientRect().left;
                pick.hidden = Math.abs(event.clientX - drag.x) < 4;
                pick.style.left = (Math.min(event.clientX, drag.x) - base) + "px";
                pick.style.width = Math.abs(event.clientX - drag.x) + "px";
            }
            read();
        });
        root.addEventListener("pointerup", function (event) {
            if (drag && !drag.axis && Math.abs(event.clientX - drag.x) >= 4) {
                var to = at(event);
                show(Math.min(drag.ms, to), Math.max(drag.ms, to));
                say(false);
            }
            drag = null;
            pick.hidden = true;
        });
        root.addEventListener("pointercancel", function () { drag = null; pick.hidden = true; });
        root.addEventListener("pointerleave", function () { if (!drag) { cursor = null; read(); } });
        root.addEventListener("dblclick", function (event) { if (over(event)) actions.all(); });
        // The wheel scrolls the page, unless Ctrl is held or the pointer is over the axis.
        root.addEventListener("wheel", function (event) {
            if (!event.ctrlKey && !by("axis").contains(event.target)) return;
            event.preventDefault();
            zoom(Math.pow(1.0015, event.deltaY), at(event));
        }, { passive: false });
        window.addEventListener("resize", draw);
        root.classList.add("live");
        draw();
    }

    // Links to the parts of a section become its tabs.
    function tabs(list) {
        var links = all("a", list);
        var panels = links.map(function (link) { return by(link.hash.slice(1)); });
        list.setAttribute("role", "tablist");
        list.setAttribute("aria-label", list.dataset.label);
        list.parentNode.classList.add("live");
        function select(index) {
            links.forEach(function (link, n) {
                link.setAttribute("aria-selected", String(n === index));
                link.tabIndex = n === index ? 0 : -1;
                panels[n].classList.toggle("off", n !== index);
            });
        }
        links.forEach(function (link, index) {
            link.id = "tab-" + panels[index].id;
            link.setAttribute("role", "tab");
            link.setAttribute("aria-controls", panels[index].id);
            panels[index].setAttribute("role", "tabpanel");
            panels[index].setAttribute("aria-labelledby", link.id);
            link.addEventListener("click", function (event) { event.preventDefault(); select(index); });
            link.addEventListener("keydown", function (event) {
                var last = links.length - 1;
                var to = {
                    ArrowRight: index === last ? 0 : index + 1, ArrowLeft: index === 0 ? last : index - 1,
                    Home: 0, End: last, " ": index
                }[event.key];
                if (to === undefined) return;
                event.preventDefault();
                select(to);
                links[to].focus();
            });
        });
        var asked = panels.findIndex(function (panel) { return "#" + panel.id === location.hash; });
        select(asked >= 0 ? asked : Number(list.dataset.first));
    }

    timeline();
    all("div.tabs").forEach(tabs);
})();
