# SPDX-License-Identifier: MIT
# Draws the table of numio-model: gnuplot -e "table='model.txt'; picture='model.svg'" plot.gp
set terminal svg size 1060,620 font "sans-serif,14" background "white"
set output picture
set multiplot layout 2,3 title "A model, not a measurement: 4 nodes of 1 to 64 cores" font ",15" \
    margins 0.075,0.985,0.09,0.86 spacing 0.065,0.12
set logscale x 2
set xrange [3.7:280]
set xtics (4, 8, 16, 32, 64, 128, 256)
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror out
unset key
set style line 1 lw 3 lc rgb "#1b6ca8"
set style line 2 lw 3 lc rgb "#d1495b" dt (12,4)
set style line 3 lw 3 lc rgb "#8d8d8d" dt (2,4)
of(load, policy, column) = sprintf("< awk '$1==\"%s\" && $2==\"%s\" {print $4, %s}' %s", \
    load, policy, column, table)
array titles[3] = ["balanced, 70 % busy", "all born on one node", "a tree of 65,536 leaves"]
array loads[3] = ["balanced", "skewed", "tree"]

per_core = "$5 / $4"
lines = "$6"
tops = "0.5 0.13 1.8"
do for [i=1:3] {
    set title titles[i] offset 0,-0.5
    if (i == 1) { set ylabel "tasks per µs and core" offset 0.5,0; set key bottom left reverse Left samplen 2.5 }
    else { unset ylabel; unset key }
    set yrange [0:real(word(tops, i))]
    plot of(loads[i], "numio", per_core) using 1:2 with lines ls 1 title "numio", \
         of(loads[i], "flat", per_core) using 1:2 with lines ls 2 title "flat (Tokio's)", \
         of(loads[i], "none", per_core) using 1:2 with lines ls 3 title "no stealing"
}
unset title
unset key
set xlabel "cores"
do for [i=1:3] {
    if (i == 1) { set ylabel "lines between nodes per task" offset 0.5,0 } else { unset ylabel }
    if (i == 3) { set yrange [0:1] } else { set yrange [0:9] }
    plot of(loads[i], "numio", lines) using 1:2 with lines ls 1, \
         of(loads[i], "flat", lines) using 1:2 with lines ls 2, \
         of(loads[i], "none", lines) using 1:2 with lines ls 3
}
unset multiplot
