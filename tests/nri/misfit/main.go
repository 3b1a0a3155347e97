// Misfit is a plugin that hangs, dies during a request, or sends garbage, as configured.
package main

import (
	"context"
	"fmt"
	"os"

	"berth.local/tests/nri/plugin"
	"github.com/containerd/nri/pkg/api"
)

type misfit struct {
	plugin.Base
}

func (m *misfit) misbehave(event string) {
	if path := m.Config.Record; path != "" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			plugin.Fail(err)
		}
		fmt.Fprintf(file, "{\"event\":%q}\n", event)
		file.Close()
	}
	switch m.Config.Misbehave[event] {
	case "hang":
		select {}
	case "die":
		os.Exit(3)
	case "garbage":
		_, _ = m.Trunk.Write([]byte("HTTP/1.1 418 I'm a teapot\r\n\r\n"))
		select {}
	}
}

func (m *misfit) Synchronize(context.Context, []*api.PodSandbox, []*api.Container) ([]*api.ContainerUpdate, error) {
	m.misbehave("Synchronize")
	return nil, nil
}

func (m *misfit) RunPodSandbox(context.Context, *api.PodSandbox) error {
	m.misbehave("RunPodSandbox")
	return nil
}

func (m *misfit) StopPodSandbox(context.Context, *api.PodSandbox) error {
	m.misbehave("StopPodSandbox")
	return nil
}

func (m *misfit) CreateContainer(context.Context, *api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	m.misbehave("CreateContainer")
	return nil, nil, nil
}

func (m *misfit) StartContainer(context.Context, *api.PodSandbox, *api.Container) error {
	m.misbehave("StartContainer")
	return nil
}

func (m *misfit) StopContainer(context.Context, *api.PodSandbox, *api.Container) ([]*api.ContainerUpdate, error) {
	m.misbehave("StopContainer")
	return nil, nil
}

func main() {
	m := &misfit{}
	m.Flags()
	m.Run(m)
}
