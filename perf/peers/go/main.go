// SPDX-License-Identifier: MIT

// go-peer: the scenarios of perf/SCENARIOS.md about time, locks and messages on Go, and a TCP echo
// server.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
)

type scenario struct {
	name string
	also []string // the further lines that its run yields
	run  func(o *options) ([]series, error)
}

var scenarios = []scenario{
	{"mpsc_1p", nil, mpsc1},
	{"mpsc_4p", nil, mpsc4},
	{"oneshot", nil, oneshot},
	{"request_reply", nil, requestReply},
	{"mutex_uncontended", nil, mutexUncontended},
	{"semaphore_uncontended", nil, semaphoreUncontended},
	{"mutex_contended", nil, mutexContended},
	{"timer_insert_cancel", nil, timerInsertCancel},
	{"timer_insert_cancel_100k", nil, timerInsertCancel100k},
	{"timer_fire_100k", []string{"timer_fire_100k_late_p99"}, timerFire100k},
	{"sleep_1ms", []string{"sleep_1ms_p99"}, sleep1ms},
	{"sleep_100us", []string{"sleep_100us_p99"}, sleep100us},
}

type options struct {
	list, quick     bool
	rounds, workers int
	json            string
	filter          *regexp.Regexp
}

func die(what string, err error) {
	fmt.Fprintf(os.Stderr, "go-peer: %s: %v\n", what, err)
	os.Exit(1)
}

func version() string {
	return runtime.Version()[len("go"):]
}

func parse() *options {
	o := &options{}
	filter := flag.String("filter", "", "only scenarios whose names match this expression")
	showsVersion := flag.Bool("version", false, "say which Go this is")
	flag.BoolVar(&o.list, "list", false, "name the scenarios")
	flag.BoolVar(&o.quick, "quick", false, "a smoke test, no figures to quote")
	flag.StringVar(&o.json, "json", "", "append lines to this file, and print a table")
	flag.IntVar(&o.rounds, "rounds", 0, "samples")
	flag.IntVar(&o.workers, "workers", runtime.NumCPU(),
		"threads that run Go code at the same time (GOMAXPROCS)")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "Usage: go-peer [options] | go-peer echo --port P [--workers N]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *showsVersion {
		fmt.Println("go", version())
		os.Exit(0)
	}
	if o.workers < 1 || o.rounds < 0 || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if o.rounds == 0 {
		o.rounds = 11
		if o.quick {
			o.rounds = 3
		}
	}
	var err error
	if o.filter, err = regexp.Compile(*filter); err != nil {
		die("--filter", err)
	}
	return o
}

func (s *scenario) names() []string {
	return append([]string{s.name}, s.also...)
}

func (s *scenario) isWanted(o *options) bool {
	for _, name := range s.names() {
		if o.filter.MatchString(name) {
			return true
		}
	}
	return false
}

func list(o *options) {
	for i := range scenarios {
		for _, name := range scenarios[i].names() {
			if o.filter.MatchString(name) {
				fmt.Println(name)
			}
		}
	}
}

func runAll(o *options) {
	out := openSink(o)
	for i := range scenarios {
		s := &scenarios[i]
		if !s.isWanted(o) {
			continue
		}
		fmt.Fprintf(os.Stderr, "go: %s ...\n", s.name)
		all, err := s.run(o)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: skipped: %v\n", s.name, err)
			continue
		}
		for _, one := range all {
			if o.filter.MatchString(one.name) {
				out.put(&one)
			}
		}
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "echo" {
		serveEcho(os.Args[2:])
		return
	}
	o := parse()
	if o.list {
		list(o)
		return
	}
	runtime.GOMAXPROCS(o.workers)
	runAll(o)
}
