// SPDX-License-Identifier: MIT

// Scenarios of messages between goroutines.
package main

import (
	"fmt"
	"os"
	"time"
)

const (
	messages      = 100000
	capacity      = 1000
	oneshots      = 10000
	replies       = 10000
	replyCapacity = 16
)

func check(holds bool, what string) {
	if !holds {
		fmt.Fprintln(os.Stderr, "go-peer: wrong:", what)
		os.Exit(1)
	}
}

func mpsc(o *options, name string, producers uint64) ([]series, error) {
	each := messages / producers
	return repeat(o, name, func() block {
		channel := make(chan uint64, capacity)
		start := time.Now()
		for p := uint64(0); p < producers; p++ {
			go func() {
				for i := uint64(1); i <= each; i++ {
					channel <- i
				}
			}()
		}
		sum := uint64(0)
		for i := uint64(0); i < each*producers; i++ {
			sum += <-channel
		}
		one := since(start, int(each*producers))
		check(sum == producers*(each*(each+1)/2), "the sum of the messages")
		return one
	}), nil
}

func mpsc1(o *options) ([]series, error) { return mpsc(o, "mpsc_1p", 1) }
func mpsc4(o *options) ([]series, error) { return mpsc(o, "mpsc_4p", 4) }

// Go's one-shot channel is a channel with room for one.
func oneshot(o *options) ([]series, error) {
	return repeat(o, "oneshot", func() block {
		sum := uint64(0)
		start := time.Now()
		for i := uint64(0); i < oneshots; i++ {
			channel := make(chan uint64, 1)
			channel <- i
			sum += <-channel
		}
		one := since(start, oneshots)
		check(sum == oneshots*(oneshots-1)/2, "the sum of the messages")
		return one
	}), nil
}

func requestReply(o *options) ([]series, error) {
	return repeat(o, "request_reply", func() block {
		requests := make(chan uint64, replyCapacity)
		answers := make(chan uint64, replyCapacity)
		go func() {
			for i := 0; i < replies; i++ {
				answers <- <-requests + 1
			}
		}()
		message := uint64(0)
		start := time.Now()
		for i := 0; i < replies; i++ {
			requests <- message
			message = <-answers
		}
		one := since(start, replies)
		check(message == replies, "the last reply")
		return one
	}), nil
}
