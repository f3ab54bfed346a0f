// SPDX-License-Identifier: MIT

// Scenarios about locks.
package main

import (
	"runtime"
	"sync"
	"time"
)

const (
	pairs      = 100000
	contenders = 8
	turns      = 1000
)

func mutexUncontended(o *options) ([]series, error) {
	return repeat(o, "mutex_uncontended", func() block {
		var mutex sync.Mutex
		count := 0
		start := time.Now()
		for i := 0; i < pairs; i++ {
			mutex.Lock()
			count++
			mutex.Unlock()
		}
		one := since(start, pairs)
		check(count == pairs, "the count under the mutex")
		return one
	}), nil
}

// Go's semaphore is a channel with room for its permits.
func semaphoreUncontended(o *options) ([]series, error) {
	return repeat(o, "semaphore_uncontended", func() block {
		semaphore := make(chan struct{}, 1)
		count := 0
		start := time.Now()
		for i := 0; i < pairs; i++ {
			semaphore <- struct{}{}
			count++
			<-semaphore
		}
		one := since(start, pairs)
		check(count == pairs, "the count under the semaphore")
		return one
	}), nil
}

func mutexContended(o *options) ([]series, error) {
	return repeat(o, "mutex_contended", func() block {
		var mutex sync.Mutex
		var done sync.WaitGroup
		count := 0
		start := time.Now()
		for i := 0; i < contenders; i++ {
			done.Add(1)
			go func() {
				defer done.Done()
				for turn := 0; turn < turns; turn++ {
					mutex.Lock()
					seen := count
					runtime.Gosched()
					count = seen + 1
					mutex.Unlock()
				}
			}()
		}
		done.Wait()
		one := since(start, contenders*turns)
		check(count == contenders*turns, "the count under the mutex")
		return one
	}), nil
}
