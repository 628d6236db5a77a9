import { mount } from "svelte";
import App from "./App.svelte";
import "./style.css";

const target = document.getElementById("app")!;
target.replaceChildren(); // what is said where scripts cannot start
mount(App, { target });
