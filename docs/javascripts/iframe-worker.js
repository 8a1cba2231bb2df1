// Browsers refuse workers to pages from file://, and the search runs in one. There a hidden frame takes the worker's
// place: it runs the worker's script in a window of its own, which gets the two names that a worker has besides a window's.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe")
    #ready

    constructor(path) {
      super()
      const url = new URL(path, location)
      this.#frame.hidden = true
      this.#frame.srcdoc = "<!doctype html><body></body>"
      this.#ready = new Promise((resolve) => this.#frame.addEventListener("load", resolve, { once: true })).then(() => {
        const inside = this.#frame.contentWindow
        inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
        inside.importScripts = async (...paths) => {
          for (const each of paths) await run(new URL(each, url), inside.document)
        }
        return run(url, inside.document).then(() => inside)
      })
      this.#ready.catch((error) => this.dispatchEvent(new ErrorEvent("error", { error, message: error.message })))
      document.body.append(this.#frame)
    }

    postMessage(data) {
      this.#ready.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.#frame.remove()
    }
  }

  function run(url, page) {
    return new Promise((resolve, reject) => {
      const script = page.createElement("script")
      script.src = url
      script.onload = resolve
      script.onerror = () => reject(new Error(`Cannot run ${url}`))
      page.body.append(script)
    })
  }
}
