// SPDX-License-Identifier: MIT

// Scenarios about time: timers that are armed and taken back, many that end, sleeps.
package main

import (
	"errors"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	cancels     = 20000
	outstanding = 100000
	arming      = 2 * time.Second
)

// The same sequence in every program: a linear congruential generator's upper half.
func nextRandom(state *uint64) uint64 {
	*state = *state*6364136223846793005 + 1442695040888963407
	return *state >> 33
}

func insertAndCancel() block {
	random := uint64(1)
	start := time.Now()
	for i := 0; i < cancels; i++ {
		delay := time.Second + time.Duration(nextRandom(&random)%60e9)
		check(time.NewTimer(delay).Stop(), "a timer has ended before its time")
	}
	return since(start, cancels)
}

func timerInsertCancel(o *options) ([]series, error) {
	return repeat(o, "timer_insert_cancel", insertAndCancel), nil
}

func timerInsertCancel100k(o *options) ([]series, error) {
	random := uint64(2)
	timers := make([]*time.Timer, outstanding)
	for i := range timers {
		timers[i] = time.NewTimer(600*time.Second + time.Duration(nextRandom(&random)%60e9))
	}
	all := repeat(o, "timer_insert_cancel_100k", insertAndCancel)
	for _, timer := range timers {
		timer.Stop()
	}
	return all, nil
}

func cpuTime() time.Duration {
	const processCPU = 2 // CLOCK_PROCESS_CPUTIME_ID
	var now syscall.Timespec
	if _, _, rc := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, processCPU,
		uintptr(unsafe.Pointer(&now)), 0); rc != 0 {
		die("clock_gettime", rc)
	}
	return time.Duration(now.Nano())
}

// Returns the CPU time per timer, in ns, and the p99 of their lateness, in us.
func fire(count int) (float64, float64, error) {
	var armed int64
	var ended sync.WaitGroup
	late := make([]time.Duration, count)
	base := time.Now().Add(arming)
	random := uint64(3)
	ended.Add(count)
	for i := 0; i < count; i++ {
		until := base.Add(time.Duration(nextRandom(&random) % 100e6))
		slot := &late[i]
		go func() {
			atomic.AddInt64(&armed, 1)
			time.Sleep(time.Until(until))
			*slot = time.Since(until)
			ended.Done()
		}()
	}
	time.Sleep(time.Until(base.Add(-2 * time.Millisecond)))
	inTime := atomic.LoadInt64(&armed) == int64(count)
	before := cpuTime()
	ended.Wait()
	cpu := float64(cpuTime()-before) / float64(count)
	sort.Slice(late, func(i, j int) bool { return late[i] < late[j] })
	check(late[0] >= 0, "a timer has ended before its time")
	if !inTime {
		return 0, 0, errors.New("the timers were not armed in time: the machine is busy")
	}
	return cpu, float64(late[count*99/100]) / 1e3, nil
}

func timerFire100k(o *options) ([]series, error) {
	count := 100000
	if o.quick {
		count = 10000
	}
	_, _, _ = fire(count) // a warm-up
	cpu := series{"timer_fire_100k", "ns/op", nil}
	late := series{"timer_fire_100k_late_p99", "us", nil}
	for i := 0; i < o.rounds; i++ {
		ns, us, err := fire(count)
		if err != nil {
			return nil, err
		}
		cpu.samples = append(cpu.samples, ns)
		late.samples = append(late.samples, us)
	}
	return []series{cpu, late}, nil
}

func sleeps(o *options, name string, delay time.Duration, count int) ([]series, error) {
	if o.quick {
		count = 50
	}
	p50, p99 := series{name, "us", nil}, series{name + "_p99", "us", nil}
	took := make([]float64, count)
	sleepOften := func() block {
		start := time.Now()
		for i := range took {
			before := time.Now()
			time.Sleep(delay)
			took[i] = float64(time.Since(before).Nanoseconds()) / 1e3
		}
		return since(start, count)
	}
	inside(sleepOften) // a warm-up
	for i := 0; i < o.rounds; i++ {
		inside(sleepOften)
		sort.Float64s(took)
		p50.samples = append(p50.samples, median(took))
		p99.samples = append(p99.samples, took[(count*99+99)/100-1])
	}
	return []series{p50, p99}, nil
}

func sleep1ms(o *options) ([]series, error) {
	return sleeps(o, "sleep_1ms", time.Millisecond, 100)
}

func sleep100us(o *options) ([]series, error) {
	return sleeps(o, "sleep_100us", 100*time.Microsecond, 500)
}
