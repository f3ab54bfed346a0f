// SPDX-License-Identifier: MIT

// Blocks, samples, and how their summary is written: perf/SCENARIOS.md, "The common protocol".
package main

import (
	"fmt"
	"math"
	"os"
	"sort"
	"time"
)

// What one block took, and how many operations it did.
type block struct {
	time time.Duration
	ops  int
}

func since(start time.Time, ops int) block {
	return block{time.Since(start), ops}
}

// One line of output to be.
type series struct {
	name, unit string
	samples    []float64
}

// A sample repeats blocks until their timed regions fill its span.  Each block is one goroutine,
// and the caller waits for its end.
func repeat(o *options, name string, run func() block) []series {
	span := 50 * time.Millisecond
	if o.quick {
		span = 10 * time.Millisecond
	}
	inside(run) // a warm-up
	samples := make([]float64, 0, o.rounds)
	for i := 0; i < o.rounds; i++ {
		var sum block
		for sum.ops == 0 || sum.time < span {
			one := inside(run)
			sum.time += one.time
			sum.ops += one.ops
		}
		samples = append(samples, float64(sum.time.Nanoseconds())/float64(sum.ops))
	}
	return []series{{name, "ns/op", samples}}
}

func inside(run func() block) block {
	done := make(chan block)
	go func() { done <- run() }()
	return <-done
}

func median(values []float64) float64 {
	sorted := append([]float64(nil), values...)
	sort.Float64s(sorted)
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

func deviation(values []float64) float64 {
	middle := median(values)
	away := make([]float64, len(values))
	for i, value := range values {
		away[i] = math.Abs(value - middle)
	}
	return median(away)
}

// Where lines go: JSON to stdout, or JSON to a file and a table to stdout.
type sink struct {
	file      *os.File
	workers   int
	hasHeader bool
}

func openSink(o *options) *sink {
	s := &sink{workers: o.workers}
	if o.json != "" {
		var err error
		flags := os.O_APPEND | os.O_CREATE | os.O_WRONLY
		if s.file, err = os.OpenFile(o.json, flags, 0o666); err != nil {
			die("--json", err)
		}
	}
	return s
}

func (s *sink) put(one *series) {
	sorted := append([]float64(nil), one.samples...)
	sort.Float64s(sorted)
	middle, mad, n := median(sorted), deviation(sorted), len(sorted)
	line := fmt.Sprintf("{\"scenario\":\"%s\",\"runtime\":\"go\",\"version\":\"%s\","+
		"\"workers\":%d,\"driver\":\"epoll\",\"unit\":\"%s\",\"median\":%.3f,\"mad\":%.3f,"+
		"\"min\":%.3f,\"max\":%.3f,\"n\":%d}\n", one.name, version(), s.workers, one.unit, middle,
		mad, sorted[0], sorted[n-1], n)
	if s.file == nil {
		fmt.Print(line)
		return
	}
	if _, err := s.file.WriteString(line); err != nil {
		die("--json", err)
	}
	if !s.hasHeader {
		s.hasHeader = true
		fmt.Printf("go %s, %d worker(s)\n", version(), s.workers)
		fmt.Printf("%-26s %12s %10s %12s %12s %4s  unit\n", "scenario", "median", "MAD", "min",
			"max", "n")
	}
	fmt.Printf("%-26s %12.1f %10.1f %12.1f %12.1f %4d  %s\n", one.name, middle, mad, sorted[0],
		sorted[n-1], n, one.unit)
}
